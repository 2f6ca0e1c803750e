"""z_t = shift_t(z_<) + scale_t(z_<) · z_{t-1}, z_0 ~ N(mean(x), diag scale(x)²)      (Kingma et al., 2016, eq. 10).

log q(z | x) = log q(z_0 | x) - sum_t sum_i log scale_{t, i}: the fast direction is the one that draws.
"""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.transformed import Transformed
from vae_train.model.posterior.base import FlowPosterior
from vae_train.util.ranges import PositiveInt


class InverseAutoregressive(FlowPosterior):
    """Inverse autoregressive flows; the parameters are the mean and log-variance of z_0, and a context.

    The masked networks of the flows are shared by all images and see the context. log q(z | x) of values that it did
    not draw takes D passes through each.

    Args:
        event_shape: shape of z.
        levels: None, since z is continuous.
        flows: how many, T.
        hidden: sizes of the hidden layers of each flow's network.
        context: numbers that the encoder tells these networks.
    """

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        flows: PositiveInt,
        hidden: list[PositiveInt],
        context: PositiveInt,
    ) -> None:
        super().__init__(event_shape, levels, context)
        self.flow = MaskedFlow(self.size, context, flows, hidden, bins=None, coupling=False)

    @override
    def forward(self, parameters: Tensor) -> Transformed:
        mean, log_scale, context = self.parts(parameters)
        return Transformed(self.normal(mean, log_scale), self.flow(context))
