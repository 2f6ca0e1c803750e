"""p(x | z) = prod_i exp(-|x_i - loc_i(z)| / scale) / (2 scale)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.distributions.laplace import DequantizedLaplace
from vae_train.distributions.laplace import Laplace as LaplaceDistribution
from vae_train.model import scale as scales
from vae_train.model.family import SUPPORTS, Likelihood, Shape
from vae_train.model.scale import Scale, Spread
from vae_train.ranges import PositiveFloat


class Laplace(Likelihood):
    """Independent Laplace pixels; the parameters are the medians, and logarithms of scales where every pixel has one.

    With a fixed scale, -log p is the absolute error / scale plus a constant (`l1` has scale = 1). Data with levels is
    dequantised in closed form. All constants are in.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: mean absolute deviation on the scale of [0, 1]; where it is learned, the value to start from.
        spread: whose scale it is, see `vae_train.model.scale.Scale`; the optimal one is the mean absolute error.
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
        loc, log_scale = self.scale(parameters)
        found = LaplaceDistribution(loc, log_scale, len(self.event_shape))
        return self.scale.fitted(found if self.levels is None else DequantizedLaplace(found, self.levels))
