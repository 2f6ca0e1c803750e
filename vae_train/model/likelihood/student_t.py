"""p(x | z) = prod_i t((x_i - loc_i(z)) / scale; df) / scale with t(u; df) ∝ (1 + u² / df)^(-(df + 1) / 2)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.dequantized import Dequantized
from vae_train.distributions.student_t import StudentT as StudentTDistribution
from vae_train.model.family import Shape
from vae_train.model.likelihood.base import LocationScale
from vae_train.util.ranges import PositiveFloat, Range


class StudentT(LocationScale):
    """Independent pixels with heavy tails: an error counts with its logarithm, and outliers hardly pull.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: the scale on that of [0, 1]; where it is learned, the value to start from.
        scale_mode: whose scale it is, see `vae_train.model.scale.Scale`; the best one has no closed form.
        df: degrees of freedom. Draws have a mean above 1, and a variance above 2.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        scale: PositiveFloat,
        scale_mode: Literal["fixed", "shared", "pixel"],
        df: Annotated[float, Range(1, open_low=True)],
    ) -> None:
        super().__init__(event_shape, levels, scale, scale_mode)
        self.df = df

    @override
    def forward(self, parameters: Tensor) -> Distribution:
        loc, log_scale = self.scale(parameters)
        found = StudentTDistribution(loc, log_scale, self.df, len(self.event_shape))
        return found if self.levels is None else Dequantized(found, self.levels)
