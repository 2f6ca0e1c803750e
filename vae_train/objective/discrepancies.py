"""Distances between two distributions of latents, estimated from samples."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["rbf", "imq"]


def mmd(x: Tensor, y: Tensor, kernel: Kernel, scales: Sequence[float]) -> Tensor:
    """The squared maximum mean discrepancy, unbiased (Gretton et al., 2012, eq. 3): a scalar, about 0 where x ~ y.

        E[k(x, x')] + E[k(y, y')] - 2 E[k(x, y)],    k(a, b) = sum_s f(|a - b|² / (2 D s))
        rbf: f(t) = exp(-t)      imq: f(t) = 1 / (1 + t)

    2 D is the mean squared distance of two standard normal samples, so that scales are near 1 whatever D is.

    Args:
        x: samples with shape `(*any, N, D)`; the discrepancies of `*any` are averaged.
        y: samples with shape `(M, D)`.
        kernel: the function f.
        scales: the values of s.
    """
    within = _mean_of_pairs(_kernel(x, x, kernel, scales)).mean() + _mean_of_pairs(_kernel(y, y, kernel, scales))
    return within - 2 * _kernel(x, y, kernel, scales).mean()


def sliced_wasserstein(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """The squared sliced 2-Wasserstein distance (Kolouri et al., 2019): a scalar.

    In one dimension, optimal transport maps the k-th smallest sample to the k-th smallest.

    Args:
        x: samples with shape `(*any, N, D)`; the distances of `*any` are averaged.
        y: as many samples with shape `(N, D)`.
        directions: `(P, D)`, of any length.
    """
    units = directions / directions.norm(dim=-1, keepdim=True)
    ours, theirs = (x @ units.T).sort(-2).values, (y @ units.T).sort(-2).values
    return (ours - theirs).square().mean()


def _kernel(a: Tensor, b: Tensor, kernel: Kernel, scales: Sequence[float]) -> Tensor:
    """k of all pairs of `(*any, N, D)` and `(*any, M, D)`: `(*any, N, M)`."""
    distance = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
    scaled = (distance / (2 * a.shape[-1] * scale) for scale in scales)
    return sum((torch.exp(-t) if kernel == "rbf" else 1 / (1 + t) for t in scaled), torch.zeros_like(distance))


def _mean_of_pairs(k: Tensor) -> Tensor:
    """The mean over pairs of distinct samples, of k with shape `(*any, N, N)`."""
    num = k.shape[-1]
    own = k.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (k.sum((-2, -1)) - own) / max(num * (num - 1), 1)
