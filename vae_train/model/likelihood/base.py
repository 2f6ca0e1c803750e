"""What likelihoods with a location and a scale share."""

from __future__ import annotations

from typing import Any

from vae_train.model import scale as scales
from vae_train.model.family import SUPPORTS, Likelihood, Shape
from vae_train.model.scale import Scale, Spread
from vae_train.ranges import PositiveFloat


class LocationScale(Likelihood):
    """Independent pixels with densities of a location, which the decoder gives, and a scale.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: the scale on that of [0, 1]; where it is learned, the value to start from.
        spread: whose scale it is, see `vae_train.model.scale.Scale`. Unless it is fixed, it stays above
            1 / (2 levels): a narrower density on data with levels scores the grid and not the pictures.
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
