"""A location-scale density with the scale that fits its values best."""

from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.rng import Rng


class Scalable(Protocol):
    """What `Fitted` needs of a distribution: log p = -distance / (power · scale^power) - log scale."""

    power: int
    """2 for normal densities, 1 for Laplace densities."""

    def distance(self, x: Tensor) -> Tensor:
        """|x - location|^power of every element, with shape `(*any or *batch, *event)`."""

    def with_scale(self, log_scale: Tensor) -> Distribution:
        """The same distribution with another scale."""


def optimal_log_scale(mean_distance: Tensor, power: int, floor: float) -> Tensor:
    """Logarithm of the maximum-likelihood scale, or of `floor` if that is larger.

    Args:
        mean_distance: the mean of |x - location|^power, a scalar.
        power: see `Scalable`.
        floor: lower bound of the scale.
    """
    return torch.log(mean_distance.clamp_min(floor**power)) / power


class Fitted(Distribution):
    """A normal or a Laplace density whose one scale is that of maximum likelihood.

        scale^power = mean of |x - location|^power        over all elements that `log_prob` counts

    The scale gets no gradient. That changes none, since the likelihood is stationary in its optimal scale. The density
    of a value depends on the other values, so this is for training only (Rybkin et al., 2021, Simple and Effective VAE
    Training with Calibrated Decoders, arXiv:2006.13202, eq. 8).

    Args:
        base: the density, a `Scalable`.
        floor: lower bound of the scale.
    """

    def __init__(self, base: Distribution, floor: float) -> None:
        self.base, self.floor = base, floor
        self.log_bins = base.log_bins
        super().__init__(base.batch_shape + base.event_shape, len(base.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    @override
    def variance(self) -> Tensor:
        return self.base.variance

    def mean_distance(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean of |x - location|^power over all elements that count: a scalar without a gradient."""
        base: Scalable = self.base  # type: ignore[assignment]
        with torch.no_grad():
            distance = base.distance(x)
            if mask is None:
                return distance.mean()
            counted = mask.expand_as(distance)
            return torch.where(counted, distance, 0.0).sum() / counted.sum().clamp_min(1)

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        base: Scalable = self.base  # type: ignore[assignment]
        log_scale = optimal_log_scale(self.mean_distance(x, mask), base.power, self.floor)
        return base.with_scale(log_scale).log_prob(x, mask)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self.base.sample(rng, num, temperature)
