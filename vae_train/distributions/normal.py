"""Normal distributions, of continuous values and of data on a grid."""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import LOG_2PI, promote
from vae_train.distributions.dequantized import Dequantized
from vae_train.distributions.location_scale import LocationScale, Shape
from vae_train.rng import Rng


class Normal(LocationScale):
    """Independent normal distributions, log N(x; mean, scale²).

    Args:
        loc: mean with shape `(*batch, *event)`.
        log_scale: logarithm of the standard deviation, broadcasts against the mean.
        event_ndim: how many of the last dimensions are the event.
    """

    power = 2
    unit_variance = 1.0

    @override
    def unit_terms(self, t: Tensor) -> Tensor:
        return -0.5 * (t * t + LOG_2PI)

    @override
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        return rng.normal(shape, dtype)

    def distance(self, x: Tensor) -> Tensor:
        """(x - mean)² of every element; its mean is the optimal scale²."""
        return (promote(x) - self.loc) ** 2


class DequantizedNormal(Dequantized):
    """A normal density for data on the grid k / (levels - 1), in closed form: see `Dequantized`.

    With the centre c of a level, E_u[(y - mean)²] = (c - mean)² + 1 / (12 levels²), so the expectation over u is exact.

    Args:
        base: the density, on the scale of y.
        levels: number of values that an element can take.
    """

    power = 2

    base: Normal

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        log_scale = self.base.log_scale
        return -0.5 * (self.distance(x) * torch.exp(-2 * log_scale) + LOG_2PI) - log_scale

    def distance(self, x: Tensor) -> Tensor:
        """E_u[(y - mean)²] of every element; its mean is the optimal scale²."""
        return self.base.distance(self.center(x)) + 1 / (12 * self.levels**2)
