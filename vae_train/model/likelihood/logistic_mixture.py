"""P(x | z) = prod_pixels sum_m π_m prod_c Q(x_c; loc_mc + sum_{d < c} w_mcd x_d, scale_mc), Q a discretised logistic.

PixelCNN++ (Salimans et al., 2017, eq. 1 to 3), here with everything from z instead of from pixels before.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import promote
from vae_train.distributions.logistic import LogisticMixture as LogisticMixtureDistribution
from vae_train.model.family import Likelihood, Shape
from vae_train.util.ranges import PositiveFloat, PositiveInt


class LogisticMixture(Likelihood):
    """Pixels with levels, each from a mixture; of three colours, later ones depend linearly on those before.

    A pixel counts where all its channels are observed.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take.
        components: number of components M. The decoder gives M weights, M · C locations and logarithms of scales, and
            M · 3 dependences where C is 3, for every pixel.
        scale: what all scales start from, on the scale of [0, 1]; they stay above 1 / (8 levels).
    """

    def __init__(self, event_shape: Shape, levels: int | None, components: PositiveInt, scale: PositiveFloat) -> None:
        super().__init__(event_shape, levels)
        refused = self.refusal(levels, scale=scale)
        if refused:
            raise ValueError(refused)
        assert levels is not None
        self.count, self.components = levels, components
        channels, *size = event_shape
        self.channels, self.coloured = channels, channels == 3
        self.parameter_shape = (components * (1 + 2 * channels + 3 * self.coloured), *size)
        self.floor = 2 * math.log(1 / (8 * levels))
        self.start = math.log(scale**2 - 1 / (8 * levels) ** 2)
        # Locations start scale_mode over the levels, so that components differ from the first step on.
        places = (torch.arange(components) + 0.5) / components
        self.places: Tensor
        self.register_buffer("places", places.view(-1, 1, 1, 1), persistent=False)

    @classmethod
    @override
    def refusal(cls, levels: int | None, **knobs: Any) -> str | None:
        if levels is None:
            return "scores levels, and the data has continuous values. Use model/likelihood=gaussian"
        if levels == 2:
            return "scores levels between others, and the data is binary. Use model/likelihood=bernoulli"
        if knobs["scale"] > 1 / (8 * levels):
            return None
        return f"starts with scale={knobs['scale']:g}, and scales stay above 1 / (8 levels) = {1 / (8 * levels):g}"

    @override
    def forward(self, parameters: Tensor) -> LogisticMixtureDistribution:
        leading, size = parameters.shape[:-3], parameters.shape[-2:]
        parts = promote(parameters).reshape(*leading, self.components, -1, *size)  # (*N, M, 1 + 2 C (+ 3), H, W)
        logits, loc, change, *weights = parts.split(
            [1, self.channels, self.channels, *([3] if self.coloured else [])], -3
        )
        raw = self.start + 2 * change
        log_scale = 0.5 * torch.logaddexp(raw, torch.full_like(raw, self.floor))
        dependence = torch.tanh(weights[0]) if weights else None
        return LogisticMixtureDistribution(logits.squeeze(-3), self.places + loc, log_scale, dependence, self.count)
