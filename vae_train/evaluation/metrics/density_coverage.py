"""Density and coverage of samples."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.feature_distances import CHUNK_ROWS, centered, squared_distances, squared_radii
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.reconstructions import feature_sets
from vae_train.evaluation.requirements import image_data
from vae_train.evaluation.subject import Subject


class DensityCoverage(Metric):
    """Precision and recall that outliers among the samples do not change.

    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (arXiv:2002.09797), equations
    5 and 6.

    Args:
        inception: file with weights of Inception v3; None for features of this data's own labels.
        enabled: whether it is measured.
    """

    outputs = (
        MetricInfo("density", "density of samples", decimals=3),
        MetricInfo("coverage", "coverage of samples", decimals=3),
    )
    requires = (image_data,)
    order = 56

    def __init__(self, inception: str | None, enabled: bool) -> None:
        super().__init__(enabled)
        self.inception = inception

    @override
    def __call__(self, subject: Subject) -> Results:
        sets = feature_sets(subject, self.inception)
        about, n = {"conditions": sets.conditions}, len(sets.real)
        values = density_coverage(sets.real, sets.sampled)
        return {name: Estimate(value, None, n, about) for name, value in values.items()}


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
