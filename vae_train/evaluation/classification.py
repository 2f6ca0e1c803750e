"""Reading classes off latents: what the probes share."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from vae_train.batch import evenly_spaced
from vae_train.evaluation.encodings import encodings, train_encodings
from vae_train.evaluation.metrics.base import Estimate, Metric, Results
from vae_train.evaluation.requirements import class_labels, single_latent
from vae_train.evaluation.subject import Subject, shared
from vae_train.plotting.arrays import Array, to_float_array

MAX_TRAIN_POINTS = 10_000
"""Training latents of a probe: more take long and change little."""


class ProbeData(NamedTuple):
    """Latents and classes to train on and to test on."""

    train_latents: NDArray[np.float64]
    train_y: NDArray[Any]
    test_latents: NDArray[np.float64]
    test_y: NDArray[Any]


@shared
def probe_data(subject: Subject) -> ProbeData:
    """Encodes training images and the split: posterior means and their classes."""
    train, test = train_encodings(subject), encodings(subject)
    assert train.y is not None
    assert test.y is not None
    columns = (train.mean, train.y[:, 0], test.mean, test.y[:, 0])
    return ProbeData(*(column.cpu().numpy() for column in columns))


class Probe(Metric):
    """A classifier of posterior means: a subclass has its output and `accuracy`."""

    requires = (single_latent, class_labels)

    @override
    def __call__(self, subject: Subject) -> Results:
        return {self.outputs[0].name: self.accuracy(probe_data(subject))}

    @abstractmethod
    def accuracy(self, data: ProbeData) -> Estimate:
        """Estimates the accuracy on the test points."""


def thin(latents: Array, y: Array, limit: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Returns at most `limit` evenly spaced latents `(N, D)` and their classes `(N,)`."""
    index = evenly_spaced(len(latents), limit).numpy()
    return to_float_array(latents)[index], to_labels(y)[index]


def to_labels(y: Array) -> NDArray[Any]:
    """Converts classes `(N,)` to an array."""
    return torch.as_tensor(y).cpu().numpy()


def accuracy(predicted: NDArray[Any], y: Array, num_train: int) -> Estimate:
    """Estimates the accuracy of predicted classes `(N,)`."""
    hits = (predicted == to_labels(y)).astype(np.float64)
    se = float(hits.std(ddof=1)) / math.sqrt(len(hits)) if len(hits) > 1 else None
    return Estimate(float(hits.mean()), se, len(hits), {"num_train": num_train})
