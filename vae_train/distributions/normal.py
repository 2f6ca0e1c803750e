"""Normal distributions."""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import LOG_2PI, promote
from vae_train.distributions.location_scale import LocationScale, Shape
from vae_train.rng import Rng


class Normal(LocationScale):
    """Independent normal distributions, log N(x; mean, scale²).

    Args:
        loc: mean with shape `(*batch, *event)`.
        log_scale: logarithm of the standard deviation, broadcasts against the mean.
        event_ndim: number of trailing event dimensions.
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
