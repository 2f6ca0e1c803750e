"""Categorical distributions of one-hot vectors and of the levels of a pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng


class OneHotCategorical(Distribution):
    """Independent categorical distributions, each a block of an event: log P(x) = sum x · log-softmax(logits).

    For one-hot x that is the log-mass. For relaxed x, inside the simplex, it is the linear extension of the log-mass.
    That is not a log-density, so ratios of it are not importance weights.

    Without a gradient, samples are exact: argmax(logits + g) with Gumbel noise g. With a gradient, it is that of
    softmax((logits + g) / relaxation), the Gumbel-softmax or concrete relaxation (Jang et al., 2017, Categorical
    Reparameterization with Gumbel-Softmax, arXiv:1611.01144, eq. 2; Maddison et al., 2017, The Concrete Distribution,
    arXiv:1611.00712, eq. 10). With `hard` the values remain one-hot (straight-through) and the gradient is biased;
    otherwise the relaxed values are the samples. The temperature of `sample` divides the logits.

    Args:
        logits: unnormalised log-probabilities with shape `(*batch, D)`, in consecutive blocks of `categories`.
        categories: number of values of each variable; divides D.
        relaxation: temperature of the softmax.
        hard: whether relaxed samples have one-hot values, see above.
    """

    summary_note = "codes are the most likely categories, and mean their probabilities"

    def __init__(self, logits: Tensor, categories: int, relaxation: float, hard: bool) -> None:
        if logits.shape[-1] % categories:
            raise ValueError(f"{logits.shape[-1]} logits do not form blocks of {categories} categories")
        self.logits = promote(logits)
        self.categories, self.relaxation, self.hard = categories, relaxation, hard
        super().__init__(logits.shape, 1)

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of every category, with shape `(*batch, D)`."""
        return self._blocks(self.logits).log_softmax(-1).flatten(-2)

    @property
    @override
    def mean(self) -> Tensor:
        return self._blocks(self.logits).softmax(-1).flatten(-2)

    @property
    @override
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    @override
    def summary(self, rng: Rng) -> dict[str, Tensor]:
        """Also "codes", the most likely category of every variable, int64 `(*batch, D / categories)`."""
        return super().summary(rng) | {"codes": self._blocks(self.logits).argmax(-1)}

    def shifted(self, shift: Tensor) -> OneHotCategorical:
        """The same with `shift`, a tensor with shape `(*any, D)`, added to the logits."""
        return OneHotCategorical(self.logits + shift, self.categories, self.relaxation, self.hard)

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        return (promote(x) * self.log_probs).sum(-1)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        gumbel = rng.gumbel((num, *self.logits.shape), self.logits.dtype)
        logits = self.logits.expand(gumbel.shape)
        if temperature > 0.0:
            logits = logits / temperature + gumbel
        blocks = self._blocks(logits)
        numbers = torch.arange(self.categories, device=blocks.device)
        exact = (blocks.argmax(-1, keepdim=True) == numbers).to(blocks.dtype).flatten(-2)
        if not torch.is_grad_enabled():
            return exact
        relaxed = (blocks / self.relaxation).softmax(-1).flatten(-2)
        return exact + (relaxed - relaxed.detach()) if self.hard else relaxed

    def _blocks(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.categories))


class Levels(Distribution):
    """Independent categorical distributions of values on the grid k / (levels - 1): log P(k) = log softmax(logits)_k.

    Args:
        logits: with shape `(*batch, *event, levels)`.
        event_ndim: number of event dimensions, before the last one.
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
