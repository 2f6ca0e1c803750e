"""P(x | z) = prod_i σ((x_i + h - loc_i(z)) / scale) - σ((x_i - h - loc_i(z)) / scale),  h = 1 / (2 (levels - 1)).

Kingma et al. (2016), section 5.2. The first and the last level take what lies beyond (Salimans et al., 2017, eq. 2).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.logistic import DiscretizedLogistic as DiscretizedLogisticDistribution
from vae_train.model.family import Likelihood, Shape
from vae_train.model.scale import Scale
from vae_train.util.ranges import PositiveFloat


class DiscretizedLogistic(Likelihood):
    """Independent pixels with levels, each level with the mass of its interval: a likelihood without a bound.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take.
        scale: of the logistic density, on the scale of [0, 1]; where it is learned, the value to start from.
        scale_mode: how the scale is found, see `vae_train.model.scale.Scale`. Unless it is fixed, it stays above
            1 / (8 levels), where nearly all mass is on one level.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        scale: PositiveFloat,
        scale_mode: Literal["fixed", "shared", "pixel"],
    ) -> None:
        super().__init__(event_shape, levels)
        refused = self.refusal(levels, scale=scale, scale_mode=scale_mode)
        if refused:
            raise ValueError(refused)
        assert levels is not None
        self.count = levels
        self.scale = Scale(self.event_shape, scale, scale_mode, 0.0 if scale_mode == "fixed" else 1 / (8 * levels))
        self.parameter_shape = self.scale.parameter_shape

    @classmethod
    @override
    def refusal(cls, levels: int | None, **knobs: Any) -> str | None:
        if levels is None:
            return "scores levels, and the data has continuous values. Use model/likelihood=gaussian"
        if levels == 2:
            return "scores levels between others, and the data is binary. Use model/likelihood=bernoulli"
        least = 1 / (8 * levels)
        if knobs["scale_mode"] == "fixed" or knobs["scale"] > least:
            return None
        return f"starts with scale={knobs['scale']:g}, and a learned one stays above 1 / (8 levels) = {least:g}"

    @override
    def forward(self, parameters: Tensor) -> DiscretizedLogisticDistribution:
        loc, log_scale = self.scale(parameters)
        return DiscretizedLogisticDistribution(loc, log_scale, self.count, len(self.event_shape))
