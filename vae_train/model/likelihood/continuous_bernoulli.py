"""p(x | z) = prod_i C(p_i) p_i^x_i (1 - p_i)^(1 - x_i),  x_i in [0, 1].

Loaiza-Ganem & Cunningham, 2019, The continuous Bernoulli: fixing a pervasive error in VAEs, arXiv:1907.06845, eq. 4.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.bernoulli import ContinuousBernoulli as ContinuousBernoulliDistribution
from vae_train.distributions.dequantized import Dequantized
from vae_train.model.likelihood.base import Density


class ContinuousBernoulli(Density):
    """The cross-entropy of grey pixels with its normaliser, which makes it a likelihood. The parameters are log-odds.

    Levels are dequantised exactly, since the log-density is linear in x. Continuous data must be in [0, 1]; elsewhere
    the density is 0 and the loss infinite.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
    """

    @override
    def forward(self, parameters: Tensor) -> Distribution:
        density = ContinuousBernoulliDistribution(parameters, len(self.event_shape))
        return density if self.levels is None else Dequantized(density, self.levels, nodes=1)
