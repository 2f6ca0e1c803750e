"""How well classes can be read off codes: the accuracy of simple classifiers that see nothing else.

An accuracy is a `Figure`: its "value", its standard error "se" over the "images" of the test set, and the number of
images that it was "trained_on".
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vae_train.batch import evenly_spaced
from vae_train.evaluation.evidence import Figure
from vae_train.plotting.arrays import Array, to_float_array

MOST = 10_000
"""Training codes of a probe: more of them take long and change little."""

ITERATIONS = 500
"""Of the linear probe's optimiser, at most. On standardised codes some dozens are enough."""


def linear_probe(train_codes: Array, train_y: Array, test_codes: Array, test_y: Array) -> Figure:
    """Accuracy of multinomial logistic regression on standardised codes (Alain & Bengio 2016).

    The penalty is half the squared length of the weights, beside the sum of all cross-entropies. The problem is convex
    and starts from 0: there is no seed.

    Args:
        train_codes: `(N, D)`; of more than `MOST` some are used, which are spread evenly over them.
        train_y: `(N,)` int classes.
        test_codes: `(M, D)`.
        test_y: `(M,)` int. A class that is not among the training classes is never right.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    codes, y = _training(train_codes, train_y)
    if (y == y[0]).all():  # which scikit-learn refuses
        return _accuracy(np.full(len(test_y), y[0]), test_y, len(y))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bound is meant
        probe.fit(codes, y)
    return _accuracy(probe.predict(to_float_array(test_codes)), test_y, len(y))


def knn_probe(train_codes: Array, train_y: Array, test_codes: Array, test_y: Array, *, neighbours: int = 10) -> Figure:
    """Accuracy of the majority among the nearest training codes; of classes with equal votes, the lowest is said.

    Distances are those of the codes as they are. Standardising them would make the noise of a dimension that the model
    does not use as large as what the others say.

    Args:
        train_codes: `(N, D)`; of more than `MOST` some are used, which are spread evenly over them.
        train_y: `(N,)` int classes.
        test_codes: `(M, D)`.
        test_y: `(M,)` int.
        neighbours: how many vote; all, where there are fewer training codes.
    """
    from sklearn.neighbors import KNeighborsClassifier

    codes, y = _training(train_codes, train_y)
    probe = KNeighborsClassifier(min(neighbours, len(y))).fit(codes, y)
    return _accuracy(probe.predict(to_float_array(test_codes)), test_y, len(y))


def chance(train_y: Array, test_y: Array) -> Figure:
    """Accuracy of always saying the class that is most frequent in training: what a probe of no codes would have.

    Args:
        train_y: `(N,)` int classes, all of which are counted.
        test_y: `(M,)` int.
    """
    kinds, counts = np.unique(_labels(train_y), return_counts=True)
    return _accuracy(np.full(len(test_y), kinds[counts.argmax()]), test_y, len(train_y))


def _training(codes: Array, y: Array) -> tuple[NDArray[np.float64], NDArray[Any]]:
    index = evenly_spaced(len(codes), MOST).numpy()
    return to_float_array(codes)[index], _labels(y)[index]


def _labels(y: Array) -> NDArray[Any]:
    return torch.as_tensor(y).cpu().numpy()


def _accuracy(said: NDArray[Any], y: Array, trained_on: int) -> Figure:
    hits = (said == _labels(y)).astype(np.float64)
    deviation = float(hits.std(ddof=1)) if len(hits) > 1 else math.nan
    se = deviation / math.sqrt(len(hits))
    return {"value": float(hits.mean()), "se": se, "images": len(hits), "trained_on": trained_on}
