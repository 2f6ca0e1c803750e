"""z = mean(x) + scale(x) · s_T ∘ … ∘ s_1(ε), ε ~ N(0, I), s_t monotonic rational-quadratic splines

whose parameters are functions of the elements before and of x (Durkan et al., 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.base import Chain, Scale
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.transformed import Transformed
from vae_train.model.posterior.base import FlowPosterior
from vae_train.util.ranges import PositiveInt


class NeuralSpline(FlowPosterior):
    """Neural spline flows on standard noise, then shifted and scaled; the parameters are both, and a context.

    The masked networks of the flows are shared by all images and see the context. log q(z | x) of values that it did
    not draw takes D passes through each. The splines are the identity beyond 5 standard deviations.

    Args:
        event_shape: shape of z.
        levels: None, since z is continuous.
        flows: how many, T.
        bins: pieces of each spline.
        hidden: sizes of the hidden layers of each flow's network.
        context: numbers that the encoder tells these networks.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        flows: PositiveInt,
        bins: PositiveInt,
        hidden: list[PositiveInt],
        context: PositiveInt,
    ) -> None:
        super().__init__(event_shape, levels, context)
        self.flow = MaskedFlow(self.size, context, flows, hidden, bins, coupling=False)

    @override
    def forward(self, parameters: Tensor) -> Transformed:
        mean, log_scale, context = self.parts(parameters)
        zero = torch.zeros_like(mean)
        return Transformed(self.normal(zero, zero), Chain([self.flow(context), Scale(mean, log_scale)]))
