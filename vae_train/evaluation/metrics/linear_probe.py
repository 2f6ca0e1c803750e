"""Accuracy of a linear probe."""

from __future__ import annotations

import warnings

import numpy as np
from typing_extensions import override

from vae_train.evaluation.classification import MAX_TRAIN_POINTS, Probe, ProbeData, accuracy, thin
from vae_train.evaluation.metrics.base import Estimate, MetricInfo
from vae_train.plotting.arrays import Array, to_float_array

MAX_ITERATIONS = 500
"""On standardised latents some dozens are enough."""


class LinearProbe(Probe):
    """How well a linear classifier reads the class off the posterior mean.

    Source: Alain & Bengio, "Understanding intermediate layers using linear classifier probes" (arXiv:1610.01644).
    """

    outputs = (MetricInfo("linear_probe", "linear probe accuracy", decimals=4),)
    order = 30

    @override
    def accuracy(self, data: ProbeData) -> Estimate:
        return linear_probe(*data)


def linear_probe(
    train_latents: Array,
    train_y: Array,
    test_latents: Array,
    test_y: Array,
    *,
    max_points: int = MAX_TRAIN_POINTS,
    max_iterations: int = MAX_ITERATIONS,
) -> Estimate:
    """Estimates the accuracy of multinomial logistic regression on standardised latents.

    The penalty is half the squared length of the weights, beside the sum of all cross-entropies. The problem is convex
    and starts from 0: there is no seed.

    Args:
        train_latents: `(N, D)`.
        train_y: `(N,)` int classes.
        test_latents: `(M, D)`.
        test_y: `(M,)` int. A class that is not among the training classes is never right.
        max_points: training latents, evenly spaced.
        max_iterations: of the optimiser.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    latents, y = thin(train_latents, train_y, max_points)
    if (y == y[0]).all():  # which scikit-learn refuses
        return accuracy(np.full(len(test_y), y[0]), test_y, len(y))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=max_iterations))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the limit is intended
        probe.fit(latents, y)
    return accuracy(probe.predict(to_float_array(test_latents)), test_y, len(y))
