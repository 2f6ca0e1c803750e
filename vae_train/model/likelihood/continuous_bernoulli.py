"""p(x | z) = prod_i C(p_i) p_i^x_i (1 - p_i)^(1 - x_i),  x_i in [0, 1]     (Loaiza-Ganem & Cunningham, 2019, eq. 4)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.continuous_bernoulli import ContinuousBernoulli as ContinuousBernoulliDistribution
from vae_train.distributions.dequantized import Dequantized
from vae_train.model.family import Likelihood, Shape


class ContinuousBernoulli(Likelihood):
    """What the cross-entropy of grey pixels lacks to be a likelihood: its normaliser. The parameters are log-odds.

    Levels are dequantised exactly, since the log-density is linear in x. Continuous data has to lie in [0, 1]; there is
    no density elsewhere, and a loss of infinity says so.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
    """

    def __init__(self, event_shape: Shape, levels: int | None) -> None:
        super().__init__(event_shape, levels)
        refused = self.refusal(levels)
        if refused:
            raise ValueError(refused)
        self.parameter_shape = self.event_shape

    @classmethod
    @override
    def refusal(cls, levels: int | None, **knobs: Any) -> str | None:
        if levels != 2:
            return None
        return "is a density, and the data is binary. Use model/likelihood=bernoulli, or data.binarize=none"

    @override
    def forward(self, parameters: Tensor) -> Distribution:
        found = ContinuousBernoulliDistribution(parameters, len(self.event_shape))
        return found if self.levels is None else Dequantized(found, self.levels, nodes=1)
