"""z = f_T ∘ … ∘ f_1(z_0), z_0 ~ N(mean(x), diag), f_t(z) = z + Q R₁ tanh(R₂ Qᵀz + b)

(van den Berg et al., 2018, eq. 13, with Q made of Householder reflections: their section 3.2).
"""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.base import Chain
from vae_train.distributions.flows.sylvester import Sylvester
from vae_train.distributions.transformed import Transformed
from vae_train.model.posterior.base import FlowPosterior
from vae_train.util.ranges import PositiveInt


class SylvesterFlow(FlowPosterior):
    """Householder Sylvester flows, with D hidden units, whose parameters all come from the encoder.

    They have no inverse in closed form: log q(z | x) is tractable at their own samples only.

    Args:
        event_shape: shape of z.
        levels: None, since z is continuous.
        flows: T, the number of flows.
        reflections: of which each Q is the product.
    """

    has_tractable_density = False
    supports_stop_gradient = False

    def __init__(self, event_shape: Shape, levels: int | None, flows: PositiveInt, reflections: PositiveInt) -> None:
        size = torch.Size(event_shape).numel()
        triangle = size * (size + 1) // 2
        sizes = [reflections * size, triangle, triangle, size]
        super().__init__(event_shape, levels, flows * sum(sizes))
        self.flows, self.reflections, self.sizes = flows, reflections, sizes

    @override
    def forward(self, parameters: Tensor) -> Transformed:
        mean, log_scale, values = self.parts(parameters)
        each = values.unflatten(-1, (self.flows, -1)).unbind(-2)
        return Transformed(self.normal(mean, log_scale), Chain([self._flow(one) for one in each]))

    def _flow(self, values: Tensor) -> Sylvester:
        reflections, first, second, b = values.split(self.sizes, -1)
        return Sylvester(reflections.unflatten(-1, (self.reflections, self.size)), first, second, b)
