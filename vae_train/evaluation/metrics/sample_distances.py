"""Distances between the features of samples and of real images: Fréchet and kernel distance."""

import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.samples import SampleMetric, validated
from vae_train.rng import generator


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


class KernelDistance(SampleMetric):
    """Kernel distance of samples.

    Source: Binkowski et al., "Demystifying MMD GANs" (arXiv:1801.01401), section 4.
    """

    outputs = (MetricInfo("kernel_distance", "kernel distance of samples", decimals=5),)
    order = 54

    @override
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        return {"kernel_distance": kernel_distance(real, sampled, seed=seed)}


def kernel_distance(
    real: Tensor, sampled: Tensor, *, seed: int = 0, num_subsets: int = 100, subset_size: int = 1000
) -> tuple[float, float | None]:
    """Computes the unbiased squared maximum mean discrepancy with the kernel (a · b / d + 1)³, averaged over subsets.

    Its expectation is 0 if both sets come from one distribution, whatever N is; single values may be negative.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        seed: decides the subsets, which are sampled without replacement.
        num_subsets: how many.
        subset_size: features of either kind in a subset; at most N and M.

    Returns:
        The value and its standard error over the subsets. The error is too small for overlapping subsets, as with more
        of them than N / subset_size, and None where every subset holds all features.
    """
    real, sampled = validated(real, sampled, minimum=2)
    size = min(subset_size, len(real), len(sampled))
    if size == max(len(real), len(sampled)):
        return _discrepancy(real, sampled), None
    source = generator(seed, "kernel distance")
    pairs = ((_subset(real, size, source), _subset(sampled, size, source)) for _ in range(num_subsets))
    values = torch.tensor([_discrepancy(*pair) for pair in pairs], dtype=torch.float64)
    return values.mean().item(), values.std().item() / math.sqrt(num_subsets) if num_subsets > 1 else None


def _subset(features: Tensor, size: int, source: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=source)[:size].to(features.device)]


def _discrepancy(x: Tensor, y: Tensor) -> float:
    """Computes the unbiased MMD² of `(n, d)` and `(m, d)`, without the kernel of a feature with itself."""
    within = sum(_mean_off_diagonal(_kernel(features, features)) for features in (x, y))
    return within - 2 * _kernel(x, y).mean().item()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3  # (n, m)


def _mean_off_diagonal(k: Tensor) -> float:
    return (k.sum() - k.trace()).item() / (len(k) * (len(k) - 1))
