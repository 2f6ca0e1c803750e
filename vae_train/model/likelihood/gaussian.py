"""p(x | z) = N(x; mean(z), scale² I)."""

from __future__ import annotations

from torch import Tensor

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
        spread: whose standard deviation it is, see `vae_train.model.scale.Scale`. Unless it is fixed, it stays above
            1 / (2 levels): a narrower density on data with levels scores the grid and not the pictures. "optimal" is
            the sigma-VAE (Rybkin et al., 2021).
    """

    def forward(self, parameters: Tensor) -> Distribution:
        """See `Family.forward`."""
        mean, log_scale = self.scale(parameters)
        found = Normal(mean, log_scale, len(self.event_shape))
        return self.scale.fitted(found if self.levels is None else DequantizedNormal(found, self.levels))
