"""Continuous Bernoulli distributions on [0, 1]."""

import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng

TOLERANCE = 1e-4
"""Distance by which rounding may move a value out of [0, 1]."""

MAX_SERIES_LOGITS = 0.1
"""Log-odds up to which series replace the closed forms, which are 0 / 0 at 0."""


class ContinuousBernoulli(Distribution):
    """Independent continuous Bernoulli distributions: the exponential distribution e^(l x), truncated to [0, 1].

    Loaiza-Ganem & Cunningham, 2019, The continuous Bernoulli, arXiv:1907.06845, eq. 4 to 8. With log-odds l:

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
    @override
    def mean(self) -> Tensor:
        near, half, far = self._halves()
        series = half / 6 - half**3 / 90 + half**5 / 945
        return 0.5 + torch.where(near, series, 0.5 * (1 / torch.tanh(far) - 1 / far))

    @property
    @override
    def variance(self) -> Tensor:
        near, half, far = self._halves()
        series = 1 / 12 - half**2 / 60 + half**4 / 378
        return torch.where(near, series, 0.25 * (1 / far**2 - 1 / torch.sinh(far) ** 2))

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        x = promote(x)
        return torch.where((x - 0.5).abs() > 0.5 + TOLERANCE, -math.inf, self.logits * (x - 0.5) - self._log_norm())

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        uniform = 1 - rng.uniform((num, *self.batch_shape, *self.event_shape), self.logits.dtype)
        # The inverse of the distribution function does not overflow for l < 0; l > 0 is its mirror image.
        slope = self.logits.abs().clamp_min(1e-4)
        tail = torch.where(self.logits > 0, 1 - uniform, uniform).clamp_max(1 - torch.finfo(uniform.dtype).eps)
        falling = -torch.log1p(tail * torch.expm1(-slope)) / slope
        sample = torch.where(self.logits > 0, 1 - falling, falling)
        return sample if temperature == 1.0 else self.mean + temperature * (sample - self.mean)

    def _log_norm(self) -> Tensor:
        """log(sinh(l/2) / (l/2))."""
        near, half, far = self._halves()
        far = far.abs()
        series = half**2 / 6 - half**4 / 180 + half**6 / 2835
        return torch.where(near, series, far + torch.log(-torch.expm1(-2 * far) / (2 * far)))

    def _halves(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whether the series is used; l/2; and l/2 where the closed form is used, with a constant elsewhere.

        Unused branches need finite gradients.
        """
        near, half = self.logits.abs() < MAX_SERIES_LOGITS, 0.5 * self.logits
        return near, half, torch.where(near, MAX_SERIES_LOGITS, half)
