"""p(x | z) = prod_i exp(-h((x_i - loc_i(z)) / scale)) / (scale Z) with h(t) = t²/2 up to delta, linear beyond it.

Huber (1964), Robust estimation of a location parameter, eq. 2.1.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.dequantized import Dequantized
from vae_train.distributions.huber import Huber as HuberDistribution
from vae_train.model.family import Shape
from vae_train.model.likelihood.base import LocationScale
from vae_train.util.ranges import PositiveFloat


class Huber(LocationScale):
    """Independent pixels, normal near their location and exponential far from it; with its normaliser.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: the scale of the normal part on the scale of [0, 1]; where it is learned, the value to start from.
        scale_mode: whose scale it is, see `vae_train.model.scale.Scale`; the best one has no closed form.
        delta: where squares end and absolute values begin, in units of the scale.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        scale: PositiveFloat,
        scale_mode: Literal["fixed", "shared", "pixel"],
        delta: PositiveFloat,
    ) -> None:
        super().__init__(event_shape, levels, scale, scale_mode)
        self.delta = delta

    @override
    def forward(self, parameters: Tensor) -> Distribution:
        loc, log_scale = self.scale(parameters)
        found = HuberDistribution(loc, log_scale, self.delta, len(self.event_shape))
        return found if self.levels is None else Dequantized(found, self.levels)
