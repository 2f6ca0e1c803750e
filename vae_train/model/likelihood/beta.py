"""p(x | z) = prod_i Beta(x_i; a_i, b_i) with a = m · k, b = (1 - m) · k,  m in (0, 1) and k > 0 from z.

Ferrari & Cribari-Neto (2004), Beta regression for modelling rates and proportions, eq. 4.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import Distribution, promote
from vae_train.distributions.beta import Beta as BetaDistribution
from vae_train.distributions.dequantized import Dequantized
from vae_train.model.likelihood.base import Density
from vae_train.util.ranges import Range

MAX_CONCENTRATION = 1e4
"""Upper bound of the concentration, which would diverge, like the density, for a pixel that never changes."""
MIN_SHAPE = 1e-3
"""Added to a and b, which would otherwise round to 0."""


class Beta(Density):
    """Independent beta pixels; the parameters are the log-odds of the mean m, and logarithms of the concentration k.

    The variance is m (1 - m) / (k + 1). Data with levels is dequantised, by a quadrature of the expected log-density.
    Continuous data must be in [0, 1] and is clamped to [1e-4, 1 - 1e-4], since densities may be 0 or
    infinite at the ends.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        concentration: initial value of k, which stays below 10⁴.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        concentration: Annotated[float, Range(0, MAX_CONCENTRATION / 2, open_low=True)],
    ) -> None:
        super().__init__(event_shape, levels)
        first, *rest = event_shape
        self.parameter_shape = (2 * first, *rest)
        # log k = log MAX_CONCENTRATION - softplus(-raw) is bounded and starts at the concentration.
        self.start = -math.log(MAX_CONCENTRATION / concentration - 1)

    @override
    def forward(self, parameters: Tensor) -> Distribution:
        odds, change = promote(parameters).chunk(2, -len(self.event_shape))
        log_k = math.log(MAX_CONCENTRATION) - F.softplus(-(self.start + change))
        a, b = (MIN_SHAPE + torch.exp(log_k + F.logsigmoid(side)) for side in (odds, -odds))
        density = BetaDistribution(a, b, len(self.event_shape))
        return density if self.levels is None else Dequantized(density, self.levels)
