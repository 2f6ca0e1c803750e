"""p(x | z) = prod_i t((x_i - loc_i(z)) / scale; df) / scale with t(u; df) ∝ (1 + u² / df)^(-(df + 1) / 2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.distributions.dequantized import Dequantized
from vae_train.distributions.student_t import StudentT as StudentTDistribution
from vae_train.model import scale as scales
from vae_train.model.family import Likelihood, Shape
from vae_train.model.scale import Scale
from vae_train.ranges import PositiveFloat, Range


class StudentT(Likelihood):
    """Independent pixels with heavy tails: an error counts with its logarithm, and outliers hardly pull.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: the scale on that of [0, 1]; where it is learned, the value to start from.
        spread: whose scale it is, see `vae_train.model.scale.Scale`; the best one has no closed form.
        df: degrees of freedom. Draws have a mean above 1, and a variance above 2.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        scale: PositiveFloat,
        spread: Literal["fixed", "shared", "pixel"],
        df: Annotated[float, Range(1, open_low=True)],
    ) -> None:
        super().__init__(event_shape, levels)
        refused = self.refusal(levels, scale=scale, spread=spread)
        if refused:
            raise ValueError(refused)
        self.scale, self.df = Scale(self.event_shape, scale, spread, scales.floor(levels, spread)), df
        self.parameter_shape = self.scale.parameter_shape

    @classmethod
    def refusal(cls, levels: int | None, **knobs: Any) -> str | None:
        """See `Likelihood.refusal`."""
        return scales.refusal(levels, knobs["scale"], knobs["spread"])

    def forward(self, parameters: Tensor) -> Distribution:
        """See `Family.forward`."""
        loc, log_scale = self.scale(parameters)
        found = StudentTDistribution(loc, log_scale, self.df, len(self.event_shape))
        return found if self.levels is None else Dequantized(found, self.levels)
