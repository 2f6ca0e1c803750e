"""Accuracy of nearest neighbours."""

from __future__ import annotations

from typing_extensions import override

from vae_train.evaluation.classification import MAX_TRAIN_POINTS, Probe, ProbeData, accuracy, thin
from vae_train.evaluation.metrics.base import Estimate, MetricInfo
from vae_train.plotting.arrays import Array, to_float_array


class KNNProbe(Probe):
    """How well nearest neighbours of the posterior mean predict the class."""

    outputs = (MetricInfo("knn_probe", "nearest-neighbour accuracy", decimals=4),)
    order = 31

    @override
    def accuracy(self, data: ProbeData) -> Estimate:
        return knn_probe(*data)


def knn_probe(
    train_latents: Array,
    train_y: Array,
    test_latents: Array,
    test_y: Array,
    *,
    num_neighbors: int = 10,
    max_points: int = MAX_TRAIN_POINTS,
) -> Estimate:
    """Estimates the accuracy of the majority among the nearest training latents; the lowest class wins a tie.

    Latents are not standardised: that would make the noise of an unused dimension as large as the others.

    Args:
        train_latents: `(N, D)`.
        train_y: `(N,)` int classes.
        test_latents: `(M, D)`.
        test_y: `(M,)` int.
        num_neighbors: how many vote; all if there are fewer.
        max_points: training latents, evenly spaced.
    """
    from sklearn.neighbors import KNeighborsClassifier

    latents, y = thin(train_latents, train_y, max_points)
    probe = KNeighborsClassifier(min(num_neighbors, len(y))).fit(latents, y)
    return accuracy(probe.predict(to_float_array(test_latents)), test_y, len(y))
