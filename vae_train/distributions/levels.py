"""Categorical distributions over the levels of a pixel."""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng


class Levels(Distribution):
    """Independent categorical distributions of values on the grid k / (levels - 1): log P(k) = log softmax(logits)_k.

    Args:
        logits: with shape `(*batch, *event, levels)`.
        event_ndim: how many of the last dimensions but one are the event.
    """

    is_factorized = True
    log_bins = 0.0

    def __init__(self, logits: Tensor, event_ndim: int = 1) -> None:
        self.log_mass = torch.log_softmax(promote(logits), -1)
        self.levels = logits.shape[-1]
        super().__init__(logits.shape[:-1], event_ndim)

    @property
    @override
    def mean(self) -> Tensor:
        return (torch.exp(self.log_mass) * self._values()).sum(-1)

    @property
    @override
    def variance(self) -> Tensor:
        return (torch.exp(self.log_mass) * (self._values() - self.mean[..., None]) ** 2).sum(-1)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        k = (promote(x) * (self.levels - 1)).round().long().clamp(0, self.levels - 1)[..., None]
        # torch.broadcast_shapes imports sympy.
        k, mass = torch.broadcast_tensors(k, self.log_mass[..., :1])[0], self.log_mass
        return torch.gather(mass.expand(*k.shape[:-1], self.levels), -1, k).squeeze(-1)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        uniform = rng.uniform((num, *self.batch_shape, *self.event_shape), self.log_mass.dtype)
        if temperature == 0.0:
            return (self.log_mass.argmax(-1).to(uniform) / (self.levels - 1)).expand(uniform.shape)
        reached = torch.softmax(self.log_mass.detach() / temperature, -1).cumsum(-1)
        k = (reached <= uniform[..., None]).sum(-1).clamp_max(self.levels - 1)
        return k.to(uniform) / (self.levels - 1)

    def _values(self) -> Tensor:
        return torch.arange(self.levels, device=self.log_mass.device).to(self.log_mass) / (self.levels - 1)
