"""p(x | z) = prod_i exp(-|x_i - loc_i(z)| / scale) / (2 scale)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.laplace import DequantizedLaplace
from vae_train.distributions.laplace import Laplace as LaplaceDistribution
from vae_train.model.likelihood.base import LocationScale


class Laplace(LocationScale):
    """Independent Laplace pixels; the parameters are the medians, and logarithms of scales where every pixel has one.

    With a fixed scale, -log p is the absolute error / scale plus a constant (`l1` has scale = 1). Data with levels is
    dequantised in closed form. All constants are in.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: mean absolute deviation on the scale of [0, 1]; where it is learned, the value to start from.
        scale_mode: whose scale it is, see `vae_train.model.scale.Scale`; the optimal one is the mean absolute error.
    """

    @override
    def forward(self, parameters: Tensor) -> Distribution:
        loc, log_scale = self.scale(parameters)
        found = LaplaceDistribution(loc, log_scale, len(self.event_shape))
        return self.scale.fitted(found if self.levels is None else DequantizedLaplace(found, self.levels))
