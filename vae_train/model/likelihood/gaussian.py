"""p(x | z) = N(x; mean(z), scale² I)."""

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.dequantized import DequantizedNormal
from vae_train.distributions.normal import Normal
from vae_train.model.likelihood.base import LocationScale


class Gaussian(LocationScale):
    """Independent normal pixels; the parameters are the means, and log-scales if every pixel has its own.

    With a fixed scale, -log p is the squared error / (2 scale²) plus a constant (`mse` has scale = 1). Data with levels
    is dequantised in closed form. All constants are included.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: standard deviation, for pixels in [0, 1] or standardised columns; the initial value if it is learned.
        scale_mode: see `vae_train.model.scale.Scale`. Unless it is fixed, the scale stays above 1 / (2 levels): a
            narrower density would fit the grid of levels. "optimal" is the sigma-VAE (Rybkin et al., 2021, Simple
            and Effective VAE Training with Calibrated Decoders, arXiv:2006.13202).
    """

    power = Normal.power

    @override
    def density(self, location: Tensor, log_scale: Tensor) -> Normal:
        return Normal(location, log_scale, len(self.event_shape))

    @override
    def dequantized(self, density: Normal, levels: int) -> Distribution:
        return DequantizedNormal(density, levels)
