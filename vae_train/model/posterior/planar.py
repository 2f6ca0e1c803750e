"""z = f_T ∘ … ∘ f_1(z_0), z_0 ~ N(mean(x), diag scale(x)²), f_t(z) = z + û tanh(wᵀz + b)

(Rezende & Mohamed, 2015, eq. 10).
"""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.base import Planar
from vae_train.model.posterior.base import EncodedFlowPosterior
from vae_train.util.ranges import PositiveInt


class PlanarFlow(EncodedFlowPosterior):
    """Planar flows whose parameters all come from the encoder.

    Args:
        event_shape: shape of z.
        flows: T, the number of flows.
    """

    def __init__(self, event_shape: Shape, flows: PositiveInt) -> None:
        super().__init__(event_shape, flows, 2 * torch.Size(event_shape).numel() + 1)

    @override
    def flow(self, values: Tensor) -> Planar:
        return Planar(*values.split([self.size, self.size, 1], -1))
