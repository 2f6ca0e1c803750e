"""z = f_T ∘ … ∘ f_1(z_0), z_0 ~ N(mean(x), diag), f_t(z) = z + Q R₁ tanh(R₂ Qᵀz + b)

(van den Berg et al., 2018, eq. 13, with Q made of Householder reflections: their section 3.2).
"""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.base import Sylvester
from vae_train.model.posterior.base import EncodedFlowPosterior
from vae_train.util.ranges import PositiveInt


class SylvesterFlow(EncodedFlowPosterior):
    """Householder Sylvester flows, with D hidden units, whose parameters all come from the encoder.

    Args:
        event_shape: shape of z.
        flows: T, the number of flows.
        reflections: number of Householder reflections per Q.
    """

    max_map_size = 256

    def __init__(self, event_shape: Shape, flows: PositiveInt, reflections: PositiveInt) -> None:
        size = torch.Size(event_shape).numel()
        triangle = size * (size + 1) // 2
        sizes = [reflections * size, triangle, triangle, size]
        super().__init__(event_shape, flows, sum(sizes))
        self.reflections, self.sizes = reflections, sizes

    @override
    def flow(self, values: Tensor) -> Sylvester:
        reflections, first, second, b = values.split(self.sizes, -1)
        return Sylvester(reflections.unflatten(-1, (self.reflections, self.size)), first, second, b)
