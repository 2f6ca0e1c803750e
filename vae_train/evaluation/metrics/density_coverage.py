"""Density and coverage of samples."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.feature_distances import CHUNK_ROWS, centered, squared_distances, squared_radii
from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.reconstructions import SampleMetric


class DensityCoverage(SampleMetric):
    """Precision and recall that outliers among the samples do not change.

    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (arXiv:2002.09797), equations
    5 and 6.
    """

    outputs = (
        MetricInfo("density", "density of samples", decimals=3),
        MetricInfo("coverage", "coverage of samples", decimals=3),
    )
    order = 56

    @override
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        return {name: (value, None) for name, value in density_coverage(real, sampled).items()}


def density_coverage(real: Tensor, sampled: Tensor, *, k: int = 5, chunk: int = CHUNK_ROWS) -> dict[str, float]:
    """Counts samples in open balls around real images, up to each one's k-th nearest neighbour.

    The balls are open, as in the authors' program: two equal sets have density 1 and coverage 1.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        k: the neighbour that a ball reaches to.
        chunk: features whose distances are computed at a time; does not change the result.

    Returns:
        "density", the mean number of balls around a sample divided by k, which may exceed 1; "coverage", the share of
        balls with a sample in them.
    """
    real, sampled, slack = centered(real, sampled, minimum=k + 1)
    radii, inside, covered = squared_radii(real, k, chunk) - slack, 0, 0
    for start, squares in squared_distances(real, sampled, chunk):
        within = squares < radii[start : start + len(squares), None]  # (n, M)
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    return {"density": inside / (k * len(sampled)), "coverage": covered / len(real)}
