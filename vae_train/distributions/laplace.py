"""Laplace distributions, of continuous values and of data on a grid."""

import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import promote
from vae_train.distributions.dequantized import Dequantized
from vae_train.distributions.location_scale import LocationScale, Shape, centred
from vae_train.rng import Rng

LOG_2 = math.log(2)


class Laplace(LocationScale):
    """Independent Laplace distributions, -|x - loc| / scale - log(2 scale).

    Args:
        loc: location with shape `(*batch, *event)`.
        log_scale: logarithm of the mean absolute deviation, broadcasts against `loc`.
        event_ndim: how many of the last dimensions are the event.
    """

    unit_variance = 2.0
    power = 1

    def distance(self, x: Tensor) -> Tensor:
        """|x - loc| of every element; its mean is the optimal scale."""
        return (promote(x) - self.loc).abs()

    @override
    def unit_terms(self, t: Tensor) -> Tensor:
        return -t.abs() - LOG_2

    @override
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        sign, tail = centred(rng, shape, dtype)
        return -sign * torch.log(tail)


class DequantizedLaplace(Dequantized):
    """A Laplace density for data on the grid k / (levels - 1), in closed form: see `Dequantized`.

    With the centre c and the width w = 1 / levels of a level,

        E_u|y - loc| = |c - loc| outside of it,    (c - loc)² / w + w / 4 inside,    which is smooth in loc.

    Args:
        base: the density, on the scale of y.
        levels: number of values that an element can take.
    """

    power = 1

    base: Laplace

    def distance(self, x: Tensor) -> Tensor:
        """E_u|y - loc| of every element; its mean is the optimal scale."""
        offset = (self.center(x) - self.base.loc).abs()
        return torch.where(offset * self.levels < 0.5, offset**2 * self.levels + 0.25 / self.levels, offset)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        return -self.distance(x) * torch.exp(-self.base.log_scale) - self.base.log_scale - LOG_2
