"""Continuous Bernoulli distributions on [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng

SLACK = 1e-4
"""How far rounding may move a value out of [0, 1]."""

NEAR = 0.1
"""Log-odds below which the closed forms, which are 0 / 0 at 0, give way to their series."""


class ContinuousBernoulli(Distribution):
    """Independent continuous Bernoulli distributions (Loaiza-Ganem & Cunningham, 2019, eq. 4 to 8).

    With log-odds l, that is the exponential distribution e^(l x) cut off at 0 and 1:

        log p(x) = l x - log((e^l - 1) / l) = l (x - ½) - log(sinh(l/2) / (l/2))

    Args:
        logits: l with shape `(*batch, *event)`.
        event_ndim: how many of the last dimensions are the event.
    """

    is_factorized = True

    def __init__(self, logits: Tensor, event_ndim: int = 1) -> None:
        self.logits = promote(logits)
        super().__init__(self.logits.shape, event_ndim)

    @property
    def mean(self) -> Tensor:
        """½ + (coth(l/2) - 2/l) / 2, with shape `(*batch, *event)`."""
        near, half = self._halves()
        series = half / 6 - half**3 / 90 + half**5 / 945
        return 0.5 + torch.where(near, series, 0.5 * (1 / torch.tanh(self._far(half)) - 1 / self._far(half)))

    @property
    def variance(self) -> Tensor:
        """(4/l² - 1/sinh²(l/2)) / 4, with shape `(*batch, *event)`."""
        near, half = self._halves()
        far = self._far(half)
        series = 1 / 12 - half**2 / 60 + half**4 / 378
        return torch.where(near, series, 0.25 * (1 / far**2 - 1 / torch.sinh(far) ** 2))

    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        """Log-density of every element of `x`, see `Distribution.terms`; there is none outside of [0, 1]."""
        x = promote(x)
        return torch.where((x - 0.5).abs() > 0.5 + SLACK, -math.inf, self.logits * (x - 0.5) - self._log_norm())

    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        """Reparameterised draws, by the inverse of the distribution function, see `Distribution.sample`."""
        uniform = 1 - rng.uniform((num, *self.batch_shape, *self.event_shape), self.logits.dtype)
        # That of l < 0 does not overflow; l > 0 is its mirror image.
        slope = self.logits.abs().clamp_min(1e-4)
        given = torch.where(self.logits > 0, 1 - uniform, uniform).clamp_max(1 - torch.finfo(uniform.dtype).eps)
        falling = -torch.log1p(given * torch.expm1(-slope)) / slope
        drawn = torch.where(self.logits > 0, 1 - falling, falling)
        return drawn if temperature == 1.0 else self.mean + temperature * (drawn - self.mean)

    def _log_norm(self) -> Tensor:
        """log(sinh(l/2) / (l/2))."""
        near, half = self._halves()
        far = self._far(half).abs()
        series = half**2 / 6 - half**4 / 180 + half**6 / 2835
        return torch.where(near, series, far + torch.log(-torch.expm1(-2 * far) / (2 * far)))

    def _halves(self) -> tuple[Tensor, Tensor]:
        """Where the series is used, and l/2."""
        return self.logits.abs() < NEAR, 0.5 * self.logits

    def _far(self, half: Tensor) -> Tensor:
        """l/2 where the closed form is used; what is not used has no gradient that is not finite."""
        return torch.where(self.logits.abs() < NEAR, NEAR, half)
