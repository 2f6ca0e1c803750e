"""z = f_T ∘ … ∘ f_1(z_0), z_0 ~ N(mean(x), diag scale(x)²), f_t(z) = z + û tanh(wᵀz + b)

(Rezende & Mohamed, 2015, eq. 10).
"""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.base import Chain
from vae_train.distributions.flows.planar import Planar
from vae_train.distributions.transformed import Transformed
from vae_train.model.posterior.base import FlowPosterior
from vae_train.util.ranges import PositiveInt


class PlanarFlow(FlowPosterior):
    """Planar flows whose parameters all come from the encoder, as in van den Berg et al. (2018).

    They have no inverse in closed form: log q(z | x) is tractable at their own samples only.

    Args:
        event_shape: shape of z.
        levels: None, since z is continuous.
        flows: T, the number of flows.
    """

    has_tractable_density = False
    supports_stop_gradient = False

    def __init__(self, event_shape: Shape, levels: int | None, flows: PositiveInt) -> None:
        super().__init__(event_shape, levels, flows * (2 * torch.Size(event_shape).numel() + 1))
        self.flows = flows

    @override
    def forward(self, parameters: Tensor) -> Transformed:
        mean, log_scale, values = self.parts(parameters)
        each = values.unflatten(-1, (self.flows, -1)).unbind(-2)
        flow = Chain([Planar(*v.split([self.size, self.size, 1], -1)) for v in each])
        return Transformed(self.normal(mean, log_scale), flow)
