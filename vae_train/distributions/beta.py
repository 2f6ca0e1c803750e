"""Beta distributions on (0, 1)."""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.distributions.gamma import log_gamma
from vae_train.rng import Rng

MIN_DISTANCE = 1e-4
"""Distance of values from 0 and 1 at which they are clamped, since densities may be 0 or infinite at the ends."""


class Beta(Distribution):
    """Independent beta distributions, (a - 1) log x + (b - 1) log(1 - x) - log B(a, b).

    Samples g / (g + g') of two gamma variables have no gradient. Values are clamped into [1e-4, 1 - 1e-4].

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
    @override
    def mean(self) -> Tensor:
        return self.a / (self.a + self.b)

    @property
    @override
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean) / (self.a + self.b + 1)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        x = promote(x).clamp(MIN_DISTANCE, 1 - MIN_DISTANCE)
        log_norm = torch.lgamma(self.a) + torch.lgamma(self.b) - torch.lgamma(self.a + self.b)
        return (self.a - 1) * torch.log(x) + (self.b - 1) * torch.log1p(-x) - log_norm

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        shape = (num, *self.batch_shape, *self.event_shape)
        x = torch.sigmoid(log_gamma(rng, shape, self.a) - log_gamma(rng, shape, self.b))
        return x if temperature == 1.0 else self.mean.detach() + temperature * (x - self.mean.detach())
