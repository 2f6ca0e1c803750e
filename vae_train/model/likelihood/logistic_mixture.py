"""P(x | z) = prod_pixels sum_m π_m prod_c Q(x_c; loc_mc + sum_{d < c} w_mcd x_d, scale_mc), Q a discretised logistic.

Salimans et al., 2017, PixelCNN++, arXiv:1701.05517, eq. 1 to 3, with all parameters from z instead of earlier pixels.
"""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.logistic import LogisticMixture as LogisticMixtureDistribution
from vae_train.model.likelihood.base import Discretized
from vae_train.model.scale import discretized_floor
from vae_train.util.ranges import PositiveFloat, PositiveInt


class LogisticMixture(Discretized):
    """Pixels with levels as mixtures of logistics. For three channels, later ones depend linearly on earlier ones.

    A pixel is scored if all of its channels are observed.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take.
        components: number of components M. For every pixel the decoder gives M weights, M · C locations and
            log-scales, and M · 3 dependences if C is 3.
        scale: initial value of all scales, for pixels in [0, 1]; they stay above 1 / (8 levels).
    """

    def __init__(self, event_shape: Shape, levels: int | None, components: PositiveInt, scale: PositiveFloat) -> None:
        super().__init__(event_shape, levels, scale=scale)
        self.components = components
        channels, *size = event_shape
        self.channels, self.colored = channels, channels == 3
        self.parameter_shape = (components * (1 + 2 * channels + 3 * self.colored), *size)
        floor = discretized_floor(self.levels)
        self.floor, self.start = 2 * math.log(floor), math.log(scale**2 - floor**2)
        # Locations start evenly spaced over the levels, so that components differ initially.
        places = (torch.arange(components) + 0.5) / components
        self.places = nn.Buffer(places.view(-1, 1, 1, 1), persistent=False)

    @override
    def forward(self, parameters: Tensor) -> LogisticMixtureDistribution:
        leading, size = parameters.shape[:-3], parameters.shape[-2:]
        parts = promote(parameters).reshape(*leading, self.components, -1, *size)  # (*N, M, 1 + 2 C (+ 3), H, W)
        logits, loc, change, *weights = parts.split(
            [1, self.channels, self.channels, *([3] if self.colored else [])], -3
        )
        raw = self.start + 2 * change
        log_scale = 0.5 * torch.logaddexp(raw, torch.full_like(raw, self.floor))
        dependence = torch.tanh(weights[0]) if weights else None
        return LogisticMixtureDistribution(logits.squeeze(-3), self.places + loc, log_scale, dependence, self.levels)
