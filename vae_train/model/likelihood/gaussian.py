"""p(x | z) = N(x; mean(z), scale² I)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import DequantizedNormal, Normal
from vae_train.model.likelihood.base import LocationScale


class Gaussian(LocationScale):
    """Independent normal pixels; the parameters are the means, and logarithms of scales where every pixel has one.

    With a fixed scale, -log p is the squared error / (2 scale²) plus a constant (`mse` has scale = 1). Data with levels
    is dequantised in closed form. All constants are in.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: standard deviation on the scale of [0, 1]; where it is learned, the value to start from.
        scale_mode: how the standard deviation is found, see `vae_train.model.scale.Scale`. Unless it is fixed, it
            stays above 1 / (2 levels): a narrower density would score the grid of levels. "optimal" is the sigma-VAE
            (Rybkin et al., 2021).
    """

    @override
    def forward(self, parameters: Tensor) -> Distribution:
        mean, log_scale = self.scale(parameters)
        found = Normal(mean, log_scale, len(self.event_shape))
        return self.scale.fitted(found if self.levels is None else DequantizedNormal(found, self.levels))
