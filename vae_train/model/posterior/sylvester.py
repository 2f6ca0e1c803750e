"""z = f_T ∘ … ∘ f_1(z_0), z_0 ~ N(mean(x), diag), f_t(z) = z + Q R₁ tanh(R₂ Qᵀz + b)

(van den Berg et al., 2018, eq. 13, with Q made of Householder reflections: their section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vae_train.distributions.base import promote
from vae_train.distributions.flow import Flowed
from vae_train.distributions.normal import Normal
from vae_train.flows import Chain, Sylvester
from vae_train.model.family import Posterior, Shape
from vae_train.ranges import PositiveInt


class SylvesterFlow(Posterior):
    """Householder Sylvester flows, with D hidden units, whose parameters all come from the encoder.

    They have no inverse in closed form: log q(z | x) is known of their own draws only.

    Args:
        event_shape: shape of z.
        levels: None, since z is continuous.
        flows: how many, T.
        reflections: of which each Q is the product.
    """

    factorised = False
    evaluates = False
    holds = False

    def __init__(self, event_shape: Shape, levels: int | None, flows: PositiveInt, reflections: PositiveInt) -> None:
        super().__init__(event_shape, levels)
        self.size, self.flows, self.reflections = torch.Size(event_shape).numel(), flows, reflections
        triangle = self.size * (self.size + 1) // 2
        self.sizes = [reflections * self.size, triangle, triangle, self.size]
        self.parameter_shape = (2 * self.size + flows * sum(self.sizes),)

    def forward(self, parameters: Tensor) -> Flowed:
        """See `Family.forward`."""
        parameters = promote(parameters)
        mean, log_variance = parameters[..., : 2 * self.size].chunk(2, -1)
        mean, log_scale = (t.unflatten(-1, self.event_shape) for t in (mean, 0.5 * log_variance))
        each = parameters[..., 2 * self.size :].unflatten(-1, (self.flows, -1)).unbind(-2)
        return Flowed(Normal(mean, log_scale, len(self.event_shape)), Chain([self._flow(values) for values in each]))

    def _flow(self, values: Tensor) -> Sylvester:
        reflections, first, second, b = values.split(self.sizes, -1)
        return Sylvester(reflections.unflatten(-1, (self.reflections, self.size)), first, second, b)
