"""Normal distributions, of continuous values and of data on a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_train.distributions.base import LOG_2PI, Distribution, promote
from vae_train.draws import Draw


class Normal(Distribution):
    """Independent normal distributions, log N(x; mean, scale²).

    Args:
        mean: tensor with shape `(*batch, *event)`.
        log_scale: logarithm of the standard deviation, broadcasts against `mean`.
        event_ndim: how many of the last dimensions are the event.
    """

    factorised = True
    power = 2

    def __init__(self, mean: Tensor, log_scale: Tensor, event_ndim: int = 1) -> None:
        self.loc, self.log_scale = promote(mean), promote(log_scale)
        # torch.broadcast_shapes imports sympy.
        super().__init__(torch.broadcast_tensors(self.loc, self.log_scale)[0].shape, event_ndim)

    @property
    def mean(self) -> Tensor:
        """The mean, with shape `(*batch, *event)`."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance, with shape `(*batch, *event)`."""
        return torch.exp(2 * self.log_scale).expand(self.batch_shape + self.event_shape)

    def terms(self, x: Tensor) -> Tensor:
        """Log-density of every element of `x`, see `Distribution.terms`."""
        z = (promote(x) - self.loc) * torch.exp(-self.log_scale)
        return -0.5 * (z * z + LOG_2PI) - self.log_scale

    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """Reparameterised draws mean + temperature · scale · ε, see `Distribution.sample`."""
        noise = draw.normal((num, *self.batch_shape, *self.event_shape), self.loc.dtype)
        return torch.addcmul(self.loc, torch.exp(self.log_scale), noise, value=temperature)

    def affine(self, shift: Tensor, log_scale: Tensor) -> Normal:
        """See `Distribution.affine`: normal again."""
        scaled = shift + torch.exp(log_scale) * self.loc
        return Normal(scaled, self.log_scale + log_scale, len(self.event_shape))

    def distance(self, x: Tensor) -> Tensor:
        """(x - mean)² of every element, whose mean is the best scale²."""
        return (promote(x) - self.loc) ** 2

    def at(self, log_scale: Tensor) -> Normal:
        """The same with another scale."""
        return Normal(self.loc, log_scale, len(self.event_shape))


class DequantizedNormal(Distribution):
    """A normal density for data on the grid k / (levels - 1), scored by uniform dequantisation in closed form.

    With y = (k + u) / levels and u ~ U(0, 1), Jensen's inequality gives the bound of Theis et al. (2016, eq. 3)

        log P(k) >= E_u[log N(y; mean, scale²)] - log levels                                      (per element)
        E_u[(y - mean)²] = ((k + ½) / levels - mean)² + 1 / (12 levels²)

    so the expectation over u is taken exactly: no dequantisation noise, in training or in evaluation. `log_prob` is the
    first term, a log-density on the unit interval; bits per dimension add log `levels`.

    Args:
        mean: tensor with shape `(*batch, *event)`, on the scale of y.
        log_scale: logarithm of the standard deviation on the scale of y, broadcasts against `mean`.
        levels: number of values that an element can take.
        event_ndim: how many of the last dimensions are the event.
    """

    factorised = True
    power = 2

    def __init__(self, mean: Tensor, log_scale: Tensor, levels: int, event_ndim: int) -> None:
        self.loc, self.log_scale, self.levels = promote(mean), promote(log_scale), levels
        self.log_bins = math.log(levels)
        # torch.broadcast_shapes imports sympy.
        super().__init__(torch.broadcast_tensors(self.loc, self.log_scale)[0].shape, event_ndim)

    @property
    def mean(self) -> Tensor:
        """The mean on the grid's own scale, with shape `(*batch, *event)`."""
        return self._to_grid(self.loc.expand(self.batch_shape + self.event_shape))

    def terms(self, x: Tensor) -> Tensor:
        """Expected log-density of every dequantised element, see `Distribution.terms`; `x` holds k / (levels - 1)."""
        return -0.5 * (self.distance(x) * torch.exp(-2 * self.log_scale) + LOG_2PI) - self.log_scale

    def distance(self, x: Tensor) -> Tensor:
        """E_u[(y - mean)²] of every element, whose mean is the best scale²."""
        center = (promote(x) * (self.levels - 1) + 0.5) / self.levels
        return (center - self.loc) ** 2 + 1 / (12 * self.levels**2)

    def at(self, log_scale: Tensor) -> DequantizedNormal:
        """The same with another scale."""
        return DequantizedNormal(self.loc, log_scale, self.levels, len(self.event_shape))

    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """Draws on the grid's own scale, not rounded to it, see `Distribution.sample`."""
        noise = draw.normal((num, *self.batch_shape, *self.event_shape), self.loc.dtype)
        return self._to_grid(self.loc + temperature * torch.exp(self.log_scale) * noise)

    def _to_grid(self, y: Tensor) -> Tensor:
        return (y * self.levels - 0.5) / (self.levels - 1)
