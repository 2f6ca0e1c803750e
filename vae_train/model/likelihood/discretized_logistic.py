"""P(x | z) = prod_i σ((x_i + h - loc_i(z)) / scale) - σ((x_i - h - loc_i(z)) / scale),  h = 1 / (2 (levels - 1)).

Kingma et al., 2016, Improved Variational Inference with Inverse Autoregressive Flow, arXiv:1606.04934, section 5.2. The
first and the last level include the tails (Salimans et al., 2017, PixelCNN++, arXiv:1701.05517, eq. 2).
"""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.logistic import DiscretizedLogistic as DiscretizedLogisticDistribution
from vae_train.model.likelihood.base import Discretized
from vae_train.model.scale import PlainScale, Scale, discretized_floor
from vae_train.util.ranges import PositiveFloat


class DiscretizedLogistic(Discretized):
    """Independent pixels with levels; every level has the mass of its interval, so no dequantisation bound is needed.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take.
        scale: scale of the logistic density, for pixels in [0, 1]; the initial value if the scale is learned.
        scale_mode: see `vae_train.model.scale.Scale`. Unless it is fixed, the scale stays above 1 / (8 levels), where
            nearly all mass is on one level.
    """

    def __init__(self, event_shape: Shape, levels: int | None, scale: PositiveFloat, scale_mode: PlainScale) -> None:
        super().__init__(event_shape, levels, scale=scale, scale_mode=scale_mode)
        floor = 0.0 if scale_mode == "fixed" else discretized_floor(self.levels)
        self.scale = Scale(self.event_shape, scale, scale_mode, floor)
        self.parameter_shape = self.scale.parameter_shape

    @override
    def forward(self, parameters: Tensor) -> DiscretizedLogisticDistribution:
        loc, log_scale = self.scale(parameters)
        return DiscretizedLogisticDistribution(loc, log_scale, self.levels, len(self.event_shape))
