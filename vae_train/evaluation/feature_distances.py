"""Comparing two sets of features: validation, and neighbourhoods."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vae_train.util.errors import RunError

CHUNK_ROWS = 1000
"""Features whose distances to all others are computed at a time: 80 MB for 10,000 others."""

ROUNDING = 1e-12
"""Differences of squared distances that count as none, in units of the largest squared norm."""


def validated(real: Tensor, sampled: Tensor, minimum: int) -> tuple[Tensor, Tensor]:
    """Returns the features in float64.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        minimum: how many are needed of either.

    Raises:
        ValueError: they cannot be compared, or are too few.
        RunError: some are not finite, as those of a model that has diverged.
    """
    if real.ndim != 2 or sampled.ndim != 2 or real.shape[1] != sampled.shape[1]:
        raise ValueError(f"features must be (N, d) and (M, d), not {tuple(real.shape)} and {tuple(sampled.shape)}")
    if min(len(real), len(sampled)) < minimum:
        raise ValueError(f"at least {minimum} features of either kind are needed, not {len(real)} and {len(sampled)}")
    for name, features in (("real images", real), ("samples", sampled)):
        if not features.isfinite().all():
            raise RunError(f"the features of the {name} are not finite")
    return real.double(), sampled.double()


def centered(real: Tensor, sampled: Tensor, minimum: int) -> tuple[Tensor, Tensor, float]:
    """Subtracts the common mean, which costs digits of a squared distance, and returns the remaining rounding error.

    With that error as slack, equal images have equal distances whatever they were rounded to.
    """
    real, sampled = validated(real, sampled, minimum)
    mean = (real.mean(0) + sampled.mean(0)) / 2
    real, sampled = real - mean, sampled - mean
    largest = max(features.square().sum(1).max().item() for features in (real, sampled))
    return real, sampled, ROUNDING * largest


def squared_distances(x: Tensor, y: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Yields |x_i - y_j|² `(chunk, M)` for consecutive chunks of x, each with the number of its first row."""
    norms = y.square().sum(1)
    for start in range(0, len(x), chunk):
        rows = x[start : start + chunk]
        squares = torch.addmm(norms.expand(len(rows), -1), rows, y.T, alpha=-2)
        yield start, squares.add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)


def squared_radii(features: Tensor, k: int, chunk: int) -> Tensor:
    """Returns the squared distance of each feature to its k-th nearest other one, `(N,)`."""
    nearest = (squares.kthvalue(k + 1, dim=1).values for _, squares in squared_distances(features, features, chunk))
    return torch.cat(list(nearest))
