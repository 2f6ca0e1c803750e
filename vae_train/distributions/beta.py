"""Beta distributions on (0, 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_train.distributions.base import Distribution, promote
from vae_train.distributions.gamma import log_gamma
from vae_train.rng import Rng

EDGE = 1e-4
"""How near to 0 and 1 values may lie: nearer ones are moved there, since densities may be 0 or infinite at the ends."""


class Beta(Distribution):
    """Independent beta distributions, (a - 1) log x + (b - 1) log(1 - x) - log B(a, b).

    Args:
        a: concentration at 1 with shape `(*batch, *event)`, positive.
        b: concentration at 0, alike.
        event_ndim: how many of the last dimensions are the event.
    """

    is_factorized = True

    def __init__(self, a: Tensor, b: Tensor, event_ndim: int = 1) -> None:
        self.a, self.b = promote(a), promote(b)
        super().__init__(self.a.shape, event_ndim)

    @property
    def mean(self) -> Tensor:
        """a / (a + b), with shape `(*batch, *event)`."""
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> Tensor:
        """The variance, with shape `(*batch, *event)`."""
        return self.mean * (1 - self.mean) / (self.a + self.b + 1)

    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        """Log-density of every element of `x`, see `Distribution.terms`; `x` is clamped into [1e-4, 1 - 1e-4]."""
        x = promote(x).clamp(EDGE, 1 - EDGE)
        log_norm = torch.lgamma(self.a) + torch.lgamma(self.b) - torch.lgamma(self.a + self.b)
        return (self.a - 1) * torch.log(x) + (self.b - 1) * torch.log1p(-x) - log_norm

    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        """Draws g / (g + g') of two gamma variables, without a gradient, see `Distribution.sample`."""
        shape = (num, *self.batch_shape, *self.event_shape)
        drawn = torch.sigmoid(log_gamma(rng, shape, self.a) - log_gamma(rng, shape, self.b))
        return drawn if temperature == 1.0 else self.mean.detach() + temperature * (drawn - self.mean.detach())
