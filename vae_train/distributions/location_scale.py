"""Location-scale families: x = location + scale · t with a standard variable t, elementwise."""

import copy
from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import Self, override

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng

Shape = tuple[int, ...]


class LocationScale(Distribution):
    """Independent elements with log p(x) = log f((x - location) / scale) - log scale for an even density f.

    Args:
        loc: location with shape `(*batch, *event)`.
        log_scale: logarithm of the scale, broadcasts against `loc`.
        event_ndim: how many of the last dimensions are the event.
    """

    is_factorized = True

    def __init__(self, loc: Tensor, log_scale: Tensor, event_ndim: int = 1) -> None:
        self.loc, self.log_scale = promote(loc), promote(log_scale)
        # torch.broadcast_shapes imports sympy.
        super().__init__(torch.broadcast_tensors(self.loc, self.log_scale)[0].shape, event_ndim)

    @property
    @override
    def mean(self) -> Tensor:
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    @override
    def variance(self) -> Tensor:
        return (self.unit_variance * torch.exp(2 * self.log_scale)).expand(self.batch_shape + self.event_shape)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        return self.unit_terms((promote(x) - self.loc) * torch.exp(-self.log_scale)) - self.log_scale

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        noise = self.unit_sample(rng, (num, *self.batch_shape, *self.event_shape), self.loc.dtype)
        # With a dimension for the samples, autograd need not sum over them if there is only one.
        loc, scale = self.loc.unsqueeze(0), torch.exp(self.log_scale).unsqueeze(0)
        return torch.addcmul(loc, scale, noise, value=temperature)

    @override
    def affine(self, shift: Tensor, log_scale: Tensor) -> Self:
        return self._moved(shift + torch.exp(log_scale) * self.loc, self.log_scale + log_scale)

    def with_scale(self, log_scale: Tensor) -> Self:
        """The same distribution with another scale."""
        return self._moved(self.loc, log_scale)

    def _moved(self, loc: Tensor, log_scale: Tensor) -> Self:
        moved = copy.copy(self)
        LocationScale.__init__(moved, loc, log_scale, len(self.event_shape))
        return moved

    @property
    @abstractmethod
    def unit_variance(self) -> float:
        """The variance of t."""

    @abstractmethod
    def unit_terms(self, t: Tensor) -> Tensor:
        """log f(t), elementwise."""

    @abstractmethod
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        """Samples of t with shape `shape`."""


def centred(rng: Rng, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random signs, and tails: uniform numbers on (0, 1), the probability of lying further from 0 on either side.

    Args:
        rng: the source of the noise.
        shape: shape of both.
        dtype: type of both.
    """
    uniform = rng.uniform(shape, dtype) - 0.5
    return torch.where(uniform < 0, -1.0, 1.0).to(uniform), (1 - 2 * uniform.abs()).clamp_min(
        torch.finfo(uniform.dtype).eps
    )
