"""Fréchet distance of features."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.feature_distances import validated
from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.reconstructions import SampleMetric


class FrechetDistance(SampleMetric):
    """Fréchet distance of samples; called FID only with the features that FID is defined with.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium"
    (arXiv:1706.08500), equation 6.
    """

    outputs = (MetricInfo("frechet_distance", "Fréchet distance of samples"),)
    order = 53
    fid_title = "FID"

    @override
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        return {"frechet_distance": (frechet_distance(real, sampled), None)}


def frechet_distance(real: Tensor, sampled: Tensor) -> float:
    """Computes |m - m'|² + tr(S + S' - 2 (S S')^½), the squared 2-Wasserstein distance of two Gaussians.

    m and S are mean and covariance of the features. The estimate is biased upwards by an amount that falls with N.

    No root of a covariance is taken. With centred features A and A', S = Aᵀ A and S' = A'ᵀ A', and the trace of the
    root is the sum of the singular values of A A'ᵀ, which fewer images than features do not make inaccurate.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
    """
    real, sampled = validated(real, sampled, minimum=2)
    shift = (real.mean(0) - sampled.mean(0)).square().sum()
    first, second = _root(real), _root(sampled)  # (min(N, d), d), (min(M, d), d)
    shared = torch.linalg.svdvals(first @ second.T).sum()
    distance = shift + first.square().sum() + second.square().sum() - 2 * shared
    return max(0.0, distance.item())


def _root(features: Tensor) -> Tensor:
    """Returns a triangular R with Rᵀ R = the covariance of the features (divided by N - 1)."""
    centred = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    return torch.linalg.qr(centred, mode="r").R
