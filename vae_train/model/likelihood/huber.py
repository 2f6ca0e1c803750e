"""p(x | z) = prod_i exp(-h((x_i - loc_i(z)) / scale)) / (scale Z) with h(t) = t²/2 up to delta, linear beyond it.

Huber (1964), Robust estimation of a location parameter, eq. 2.1.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.location_scale import Huber as HuberDistribution
from vae_train.model.likelihood.base import LocationScale
from vae_train.model.scale import LearnedScale
from vae_train.util.ranges import PositiveFloat


class Huber(LocationScale):
    """Independent pixels with Huber's density: normal near the location, exponential in the tails.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: the scale of the normal part, for pixels in [0, 1] or standardised columns; the initial value if it is
            learned.
        scale_mode: see `vae_train.model.scale.Scale`; the optimal scale has no closed form.
        delta: where squares end and absolute values begin, in units of the scale.
        column_shape: see `vae_train.batch.DataFacts`.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        scale: PositiveFloat,
        scale_mode: LearnedScale,
        delta: PositiveFloat,
        column_shape: Shape = (),
    ) -> None:
        super().__init__(event_shape, levels, scale, scale_mode, column_shape)
        self.delta = delta

    @override
    def density(self, location: Tensor, log_scale: Tensor) -> HuberDistribution:
        return HuberDistribution(location, log_scale, self.delta, len(self.event_shape))
