"""z = mean(x) + scale(x) · s_T ∘ … ∘ s_1(ε), ε ~ N(0, I), s_t monotonic rational-quadratic splines.

The parameters of s_t for an element are functions of the elements before it and of x (Durkan et al., 2019, Neural
Spline Flows, arXiv:1906.04032).
"""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.base import Chain, Scale, Transformed
from vae_train.model.posterior.base import MaskedFlowPosterior
from vae_train.util.ranges import PositiveInt


class NeuralSpline(MaskedFlowPosterior):
    """Neural spline flows on standard noise, then shifted and scaled; the parameters are both, and a context.

    The splines are the identity beyond 5 standard deviations.

    Args:
        event_shape: shape of z.
        flows: T, the number of flows.
        bins: bins of each spline.
        hidden: sizes of the hidden layers of each flow's network.
        context: size of the context, which the encoder computes for these networks.
    """

    def __init__(
        self, event_shape: Shape, flows: PositiveInt, bins: PositiveInt, hidden: list[PositiveInt], context: PositiveInt
    ) -> None:
        super().__init__(event_shape, flows, hidden, context, bins)

    @override
    def forward(self, parameters: Tensor) -> Transformed:
        mean, log_scale, context = self.parts(parameters)
        zero = torch.zeros_like(mean)
        return Transformed(self.normal(zero, zero), Chain([self.flow(context), Scale(mean, log_scale)]))
