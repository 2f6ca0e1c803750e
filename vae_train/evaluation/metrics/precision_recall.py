"""Precision and recall of samples."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.feature_distances import CHUNK_ROWS, centered, squared_distances, squared_radii
from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.reconstructions import SampleMetric


class PrecisionRecall(SampleMetric):
    """Shares of samples among the real images, and of real images among the samples.

    Source: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models"
    (arXiv:1904.06991), equations 1 and 2.
    """

    outputs = (
        MetricInfo("precision", "precision of samples", decimals=3),
        MetricInfo("recall", "recall of samples", decimals=3),
    )
    order = 55

    @override
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        return {name: (value, None) for name, value in precision_recall(real, sampled).items()}


def precision_recall(real: Tensor, sampled: Tensor, *, k: int = 3, chunk: int = CHUNK_ROWS) -> dict[str, float]:
    """Computes the share of each set that lies within the other's support.

    A set's support is the union of closed balls, around each of its features and up to its k-th nearest neighbour. One
    outlier makes a large ball, which density and coverage avoid.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        k: the neighbour that a ball reaches to.
        chunk: features whose distances are computed at a time; does not change the result.

    Returns:
        "precision" (quality) and "recall" (variety), between 0 and 1.
    """
    real, sampled, slack = centered(real, sampled, minimum=k + 1)
    return {
        "precision": _share_covered(sampled, real, squared_radii(real, k, chunk) + slack, chunk),
        "recall": _share_covered(real, sampled, squared_radii(sampled, k, chunk) + slack, chunk),
    }


def _share_covered(points: Tensor, centres: Tensor, radii: Tensor, chunk: int) -> float:
    """Computes the share of points `(n, d)` in a ball around one of the centres `(m, d)`; squared radii `(m,)`."""
    covered = sum(int((squares <= radii).any(1).sum()) for _, squares in squared_distances(points, centres, chunk))
    return covered / len(points)
