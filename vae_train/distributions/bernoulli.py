"""Bernoulli distributions."""

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng


class Bernoulli(Distribution):
    """Independent Bernoulli distributions, x·logits - log(1 + e^logits).

    For x strictly between 0 and 1 this is the cross-entropy of many tutorials, which is not a log-likelihood of x.
    Samples have no gradient; their temperature divides the logits.

    Args:
        logits: log-odds with shape `(*batch, *event)`.
        event_ndim: how many of the last dimensions are the event.
        binary: whether x is 0 or 1; otherwise there is no mass, and no bits per dimension.
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

    @property
    @override
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

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
