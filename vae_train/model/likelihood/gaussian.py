"""p(x | z) = N(x; mean(z), scale² I)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import DequantizedNormal, Normal
from vae_train.model import scale as scales
from vae_train.model.family import SUPPORTS, Likelihood, Shape
from vae_train.model.scale import Scale, Spread
from vae_train.ranges import PositiveFloat


class Gaussian(Likelihood):
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

    def __init__(self, event_shape: Shape, levels: int | None, scale: PositiveFloat, spread: Spread) -> None:
        super().__init__(event_shape, levels)
        refused = self.refusal(levels, scale=scale, spread=spread)
        if refused:
            raise ValueError(refused)
        self.scale = Scale(self.event_shape, scale, spread, scales.floor(levels, spread))
        self.parameter_shape = self.scale.parameter_shape
        if spread == "optimal":  # torch.func.grad forbids to move a running average
            self.supports = SUPPORTS - {"vmap"}  # type: ignore[misc]

    @classmethod
    def refusal(cls, levels: int | None, **knobs: Any) -> str | None:
        """See `Likelihood.refusal`."""
        return scales.refusal(levels, knobs["scale"], knobs["spread"])

    def forward(self, parameters: Tensor) -> Distribution:
        """See `Family.forward`."""
        mean, log_scale = self.scale(parameters)
        if self.levels is None:
            return self.scale.fitted(Normal(mean, log_scale, len(self.event_shape)))
        return self.scale.fitted(DequantizedNormal(mean, log_scale, self.levels, len(self.event_shape)))
