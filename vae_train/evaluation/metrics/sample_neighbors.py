"""Neighbourhoods of the features of samples and of real images: precision and recall, density and coverage."""

from collections.abc import Iterator

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.samples import SampleMetric, validated

CHUNK_ROWS = 1000
"""Features whose distances to all others are computed at a time: 80 MB for 10,000 others."""

ROUNDING = 1e-12
"""Differences of squared distances that count as none, in units of the largest squared norm."""


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
    real, sampled, slack = _centered(real, sampled, minimum=k + 1)
    return {
        "precision": _share_covered(sampled, real, _squared_radii(real, k, chunk) + slack, chunk),
        "recall": _share_covered(real, sampled, _squared_radii(sampled, k, chunk) + slack, chunk),
    }


def _share_covered(points: Tensor, centres: Tensor, radii: Tensor, chunk: int) -> float:
    """Computes the share of points `(n, d)` in a ball around one of the centres `(m, d)`; squared radii `(m,)`."""
    covered = sum(int((squares <= radii).any(1).sum()) for _, squares in _squared_distances(points, centres, chunk))
    return covered / len(points)


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
    real, sampled, slack = _centered(real, sampled, minimum=k + 1)
    radii, inside, covered = _squared_radii(real, k, chunk) - slack, 0, 0
    for start, squares in _squared_distances(real, sampled, chunk):
        within = squares < radii[start : start + len(squares), None]  # (n, M)
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    return {"density": inside / (k * len(sampled)), "coverage": covered / len(real)}


def _centered(real: Tensor, sampled: Tensor, minimum: int) -> tuple[Tensor, Tensor, float]:
    """Subtracts the common mean, which costs digits of a squared distance, and returns the remaining rounding error.

    With that error as slack, equal images have equal distances whatever they were rounded to.
    """
    real, sampled = validated(real, sampled, minimum)
    mean = (real.mean(0) + sampled.mean(0)) / 2
    real, sampled = real - mean, sampled - mean
    largest = max(features.square().sum(1).max().item() for features in (real, sampled))
    return real, sampled, ROUNDING * largest


def _squared_distances(x: Tensor, y: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Yields |x_i - y_j|² `(chunk, M)` for consecutive chunks of x, each with the number of its first row."""
    norms = y.square().sum(1)
    for start in range(0, len(x), chunk):
        rows = x[start : start + chunk]
        squares = torch.addmm(norms.expand(len(rows), -1), rows, y.T, alpha=-2)
        yield start, squares.add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)


def _squared_radii(features: Tensor, k: int, chunk: int) -> Tensor:
    """Returns the squared distance of each feature to its k-th nearest other one, `(N,)`."""
    nearest = (squares.kthvalue(k + 1, dim=1).values for _, squares in _squared_distances(features, features, chunk))
    return torch.cat(list(nearest))
