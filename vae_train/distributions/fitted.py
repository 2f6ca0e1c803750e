"""A location-scale density with the scale that suits its values best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.rng import Rng


class Scalable(Protocol):
    """What `Fitted` asks of a distribution, beside being one: log p = -distance / (power · scale^power) - log scale."""

    power: int
    """2 for normal densities, 1 for Laplace densities."""

    def distance(self, x: Tensor) -> Tensor:
        """|x - location|^power of every element, with shape `(*any or *batch, *event)`."""
        ...

    def at(self, log_scale: Tensor) -> Distribution:
        """The same distribution with another scale."""
        ...


class Fitted(Distribution):
    """A normal or a Laplace density whose one scale is that of maximum likelihood (Rybkin et al., 2021, eq. 8):

        scale^power = mean of |x - location|^power        over everything that `log_prob` is asked about and counts.

    The scale gets no gradient, which changes none: the likelihood has none with respect to its best scale. Since the
    values share it, a value's density depends on the others. That is for training only.

    Args:
        base: the density, a `Scalable`.
        floor: the scale stays above it.
        note: told the logarithm of every scale that is fitted.
    """

    def __init__(self, base: Distribution, floor: float, note: Callable[[Tensor], None]) -> None:
        self.base, self.floor, self.note = base, floor, note
        self.log_bins = base.log_bins
        super().__init__(base.batch_shape + base.event_shape, len(base.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        """See `Distribution.variance`: with the scale that was given."""
        return self.base.variance

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        base: Scalable = self.base  # type: ignore[assignment]
        with torch.no_grad():
            distance = base.distance(x)
            if mask is None:
                mean = distance.mean()
            else:
                counted = mask.expand_as(distance)
                mean = torch.where(counted, distance, 0.0).sum() / counted.sum().clamp_min(1)
            log_scale = torch.log(mean.clamp_min(self.floor**base.power)) / base.power
            self.note(log_scale)
        return base.at(log_scale).log_prob(x, mask)

    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        """See `Distribution.sample`: with the scale that was given."""
        return self.base.sample(rng, num, temperature)
