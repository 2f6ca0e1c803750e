"""z_t = shift_t(z_<) + scale_t(z_<) · z_{t-1}, z_0 ~ N(mean(x), diag scale(x)²).

log q(z | x) = log q(z_0 | x) - sum_t sum_i log scale_{t, i}, so sampling is the fast direction.

Kingma et al., 2016, Improved Variational Inference with Inverse Autoregressive Flow, arXiv:1606.04934, eq. 10.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.base import Transformed
from vae_train.model.posterior.base import MaskedFlowPosterior
from vae_train.util.ranges import PositiveInt


class InverseAutoregressive(MaskedFlowPosterior):
    """Inverse autoregressive flows; the parameters are the mean and log-variance of z_0, and a context.

    Args:
        event_shape: shape of z.
        flows: T, the number of flows.
        hidden: sizes of the hidden layers of each flow's network.
        context: size of the context, which the encoder computes for these networks.
    """

    def __init__(self, event_shape: Shape, flows: PositiveInt, hidden: list[PositiveInt], context: PositiveInt) -> None:
        super().__init__(event_shape, flows, hidden, context, bins=None)

    @override
    def forward(self, parameters: Tensor) -> Transformed:
        mean, log_scale, context = self.parts(parameters)
        return Transformed(self.normal(mean, log_scale), self.flow(context))
