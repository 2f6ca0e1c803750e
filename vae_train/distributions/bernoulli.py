"""Bernoulli distributions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng


class Bernoulli(Distribution):
    """Independent Bernoulli distributions, x·logits - log(1 + e^logits).

    For x strictly between 0 and 1 this is the cross-entropy of tutorials, which is no log-likelihood of x.

    Args:
        logits: log-odds with shape `(*batch, *event)`.
        event_ndim: how many of the last dimensions are the event.
        binary: whether x will be 0 or 1; without that there is no mass, and no bits per dimension.
    """

    is_factorized = True

    def __init__(self, logits: Tensor, event_ndim: int = 1, binary: bool = True) -> None:
        self.logits = promote(logits)
        self.log_bins = 0.0 if binary else None
        super().__init__(self.logits.shape, event_ndim)

    @property
    def mean(self) -> Tensor:
        """The probability of 1, with shape `(*batch, *event)`."""
        return torch.sigmoid(self.logits)

    @property
    def variance(self) -> Tensor:
        """p (1 - p), with shape `(*batch, *event)`."""
        return self.mean * (1 - self.mean)

    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        """Log-mass of every element of `x`, see `Distribution.terms`."""
        return promote(x) * self.logits - F.softplus(self.logits)

    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-mass of `x`, see `Distribution.log_prob`."""
        # softplus - x · logits in one pass over the pixels, where the obvious way to write it has two.
        return -self._sum(torch.addcmul(F.softplus(self.logits), promote(x), self.logits, value=-1), mask)

    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        """Draws of 0 and 1, without a gradient; a temperature divides the logits, see `Distribution.sample`."""
        uniform = rng.uniform((num, *self.batch_shape, *self.event_shape), self.logits.dtype)
        if temperature == 0.0:
            return (self.logits > 0).to(uniform.dtype).expand(uniform.shape)
        return (uniform < torch.sigmoid(self.logits / temperature)).to(uniform.dtype)
