"""p(x | z) = prod_i t((x_i - loc_i(z)) / scale; df) / scale with t(u; df) ∝ (1 + u² / df)^(-(df + 1) / 2)."""

from typing import Annotated

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.location_scale import StudentT as StudentTDistribution
from vae_train.model.likelihood.base import LocationScale
from vae_train.model.scale import LearnedScale
from vae_train.util.ranges import PositiveFloat, Range

DegreesOfFreedom = Annotated[float, Range(1, open_low=True)]


class StudentT(LocationScale):
    """Independent pixels with heavy tails: the loss grows logarithmically with the error, so outliers hardly matter.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: the scale, for pixels in [0, 1] or standardised columns; the initial value if it is learned.
        scale_mode: see `vae_train.model.scale.Scale`; the optimal scale has no closed form.
        df: degrees of freedom. The mean exists above 1, the variance above 2.
        column_shape: see `vae_train.batch.DataFacts`.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        scale: PositiveFloat,
        scale_mode: LearnedScale,
        df: DegreesOfFreedom,
        column_shape: Shape = (),
    ) -> None:
        super().__init__(event_shape, levels, scale, scale_mode, column_shape)
        self.df = df

    @override
    def density(self, location: Tensor, log_scale: Tensor) -> StudentTDistribution:
        return StudentTDistribution(location, log_scale, self.df, len(self.event_shape))
