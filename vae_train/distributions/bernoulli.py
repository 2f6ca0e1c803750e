"""Bernoulli distributions of bits, and continuous Bernoulli distributions on [0, 1]."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng

TOLERANCE = 1e-4
"""Tolerance for values that rounding has moved out of [0, 1]."""

MAX_SERIES_LOGITS = 0.1
"""Log-odds below which series replace the closed forms, which are 0 / 0 at 0."""


class Bernoulli(Distribution):
    """Independent Bernoulli distributions, x·logits - log(1 + e^logits).

    For x strictly between 0 and 1 this is the cross-entropy of many tutorials, which is not a log-likelihood of x.
    Samples have no gradient; their temperature divides the logits.

    Args:
        logits: log-odds with shape `(*batch, *event)`.
        event_ndim: number of trailing event dimensions.
        binary: whether x is 0 or 1; otherwise there are no probabilities and no bits per dimension.
    """

    is_factorized = True

    def __init__(self, logits: Tensor, event_ndim: int = 1, binary: bool = True) -> None:
        self.logits = promote(logits)
        self.log_bins = 0.0 if binary else None
        super().__init__(self.logits.shape, event_ndim)

    @property
    @override
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        return promote(x) * self.logits - F.softplus(self.logits)

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        # softplus - x · logits in one pass over the pixels instead of two.
        return -self._sum(torch.addcmul(F.softplus(self.logits), promote(x), self.logits, value=-1), mask)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        uniform = rng.uniform((num, *self.batch_shape, *self.event_shape), self.logits.dtype)
        if temperature == 0.0:
            return (self.logits > 0).to(uniform.dtype).expand(uniform.shape)
        return (uniform < torch.sigmoid(self.logits / temperature)).to(uniform.dtype)


class ContinuousBernoulli(Distribution):
    """Independent continuous Bernoulli distributions: the exponential distribution e^(l x), truncated to [0, 1].

    Loaiza-Ganem & Cunningham, 2019, The continuous Bernoulli, arXiv:1907.06845, eq. 4 to 8. With log-odds l:

        log p(x) = l x - log((e^l - 1) / l) = l (x - ½) - log(sinh(l/2) / (l/2))

    Args:
        logits: l with shape `(*batch, *event)`.
        event_ndim: number of trailing event dimensions.
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
