"""p(x | z) = prod_i exp(-|x_i - loc_i(z)| / scale) / (2 scale)."""

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.dequantized import DequantizedLaplace
from vae_train.distributions.location_scale import Laplace as LaplaceDistribution
from vae_train.model.likelihood.base import LocationScale


class Laplace(LocationScale):
    """Independent Laplace pixels; the parameters are the medians, and log-scales if every pixel has its own.

    With a fixed scale, -log p is the absolute error / scale plus a constant (`l1` has scale = 1). Data with levels is
    dequantised in closed form. All constants are included.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: mean absolute deviation, for pixels in [0, 1] or standardised columns; the initial value if learned.
        scale_mode: see `vae_train.model.scale.Scale`; the optimal scale is the mean absolute error.
    """

    power = LaplaceDistribution.power

    @override
    def density(self, location: Tensor, log_scale: Tensor) -> LaplaceDistribution:
        return LaplaceDistribution(location, log_scale, len(self.event_shape))

    @override
    def dequantized(self, density: LaplaceDistribution, levels: int) -> Distribution:
        return DequantizedLaplace(density, levels)
