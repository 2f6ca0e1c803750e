"""What likelihoods with a location and a scale share."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from vae_train.model import scale as scales
from vae_train.model.family import CAPABILITIES, Likelihood, Shape
from vae_train.model.scale import Scale, ScaleMode
from vae_train.util.ranges import PositiveFloat


class LocationScale(Likelihood):
    """Independent pixels with densities of a location, which the decoder gives, and a scale.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: the scale on that of [0, 1]; where it is learned, the value to start from.
        scale_mode: whose scale it is, see `vae_train.model.scale.Scale`. Unless it is fixed, it stays above
            1 / (2 levels): a narrower density on data with levels scores the grid and not the pictures.
    """

    def __init__(self, event_shape: Shape, levels: int | None, scale: PositiveFloat, scale_mode: ScaleMode) -> None:
        super().__init__(event_shape, levels)
        refused = self.refusal(levels, scale=scale, scale_mode=scale_mode)
        if refused:
            raise ValueError(refused)
        self.scale = Scale(self.event_shape, scale, scale_mode, scales.floor(levels, scale_mode))
        self.parameter_shape = self.scale.parameter_shape
        if scale_mode == "optimal":  # torch.func.grad forbids to move a running average
            self.capabilities = CAPABILITIES - {"vmap"}  # type: ignore[misc]

    @classmethod
    @override
    def refusal(cls, levels: int | None, **knobs: Any) -> str | None:
        return scales.refusal(levels, knobs["scale"], knobs["scale_mode"])
