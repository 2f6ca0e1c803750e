"""Classifiers of latents: linear and nearest-neighbour probes, and their majority-class baseline."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from vae_train.batch import evenly_spaced
from vae_train.evaluation.encodings import Encodings, encodings, single_latent
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.subject import Subject

MAX_TRAIN_POINTS = 10_000
"""Maximal number of training latents of a probe; more take long and change little."""

MAX_ITERATIONS = 500
"""Iterations of the linear probe; on standardised latents some dozens suffice."""


class Labeled(NamedTuple):
    """Latents of images with their classes."""

    latents: ArrayLike
    """(N, D)."""
    y: ArrayLike
    """(N,) int."""

    def thinned(self, limit: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Returns at most `limit` evenly spaced latents and their classes."""
        points = np.asarray(self.latents, np.float64)
        index = evenly_spaced(len(points), limit).numpy()
        return points[index], np.asarray(self.y)[index]


def linear_probe(
    train: Labeled, test: Labeled, *, max_points: int = MAX_TRAIN_POINTS, max_iterations: int = MAX_ITERATIONS
) -> Estimate:
    """Estimates the accuracy of multinomial logistic regression on standardised latents.

    The loss is the sum of all cross-entropies and half the squared norm of the weights. It is convex,
    and training starts from 0, so there is no seed.

    Args:
        train: training data.
        test: test data. Images of a class that is not among the training classes count as errors.
        max_points: maximal number of training latents, evenly spaced.
        max_iterations: iterations of the optimiser.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    latents, y = train.thinned(max_points)
    if (y == y[0]).all():  # scikit-learn needs two classes
        return _accuracy(y[0], test, len(y))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=max_iterations))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the limit is intended
        probe.fit(latents, y)
    return _accuracy(probe.predict(np.asarray(test.latents, np.float64)), test, len(y))


def knn_probe(
    train: Labeled, test: Labeled, *, num_neighbors: int = 10, max_points: int = MAX_TRAIN_POINTS
) -> Estimate:
    """Estimates the accuracy of a majority vote of the nearest training latents; the lowest class wins ties.

    Latents are not standardised, which would amplify the noise of inactive dimensions.

    Args:
        train: training data, which votes.
        test: test data.
        num_neighbors: number of voters; all if there are fewer.
        max_points: maximal number of training latents, evenly spaced.
    """
    from sklearn.neighbors import KNeighborsClassifier

    latents, y = train.thinned(max_points)
    probe = KNeighborsClassifier(min(num_neighbors, len(y))).fit(latents, y)
    return _accuracy(probe.predict(np.asarray(test.latents, np.float64)), test, len(y))


def majority_class(train: Labeled, test: Labeled) -> Estimate:
    """Estimates the accuracy of always predicting the most frequent class of training; the latents are not used."""
    classes, counts = np.unique(np.asarray(train.y), return_counts=True)
    return _accuracy(classes[counts.argmax()], test, int(counts.sum()))


def _accuracy(predicted: NDArray[Any], test: Labeled, num_train: int) -> Estimate:
    """Estimates the accuracy of predicted classes `(N,)`, or of one for all."""
    return Estimate.mean_of(torch.as_tensor(predicted == np.asarray(test.y)), num_train=num_train)


def class_labels(subject: Subject) -> str | None:
    """Requires training images with one label each."""
    if encodings(subject).y is None or subject.data.split("train") is None:
        return "the data has no labels"
    if len(subject.data.facts.factors) > 1:
        return "the data has several factors of variation; see the disentanglement metrics instead"
    return None


class _Probe(Metric):
    """A classifier of posterior means. Subclasses define `outputs` and `accuracy`."""

    requires = (single_latent, class_labels)
    accuracy: Callable[[Labeled, Labeled], Estimate]
    """Estimates the accuracy from training and test latents."""

    @override
    def __call__(self, subject: Subject) -> Results:
        train, test = _labeled(encodings(subject, "train", "probe")), _labeled(encodings(subject))
        return {self.outputs[0].name: self.accuracy(train, test)}


def _labeled(e: Encodings) -> Labeled:
    assert e.y is not None
    return Labeled(e.mean.cpu().numpy(), e.y[:, 0].cpu().numpy())


class LinearProbe(_Probe):
    """Accuracy of a linear classifier of the posterior mean.

    Source: Alain & Bengio, "Understanding intermediate layers using linear classifier probes" (arXiv:1610.01644).
    """

    outputs = (MetricInfo("linear_probe", "linear probe accuracy", decimals=4, better="higher"),)
    order = 30
    accuracy = staticmethod(linear_probe)


class KNNProbe(_Probe):
    """Accuracy of a nearest-neighbour classifier of the posterior mean."""

    outputs = (MetricInfo("knn_probe", "nearest-neighbour accuracy", decimals=4, better="higher"),)
    order = 31
    accuracy = staticmethod(knn_probe)


class MajorityClass(_Probe):
    """Accuracy of always predicting the most frequent class: the baseline of the probes."""

    outputs = (MetricInfo("majority_class", "majority-class accuracy", decimals=4),)
    order = 32
    accuracy = staticmethod(majority_class)
