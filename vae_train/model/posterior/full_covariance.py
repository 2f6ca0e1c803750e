"""q(z | x) = N(z; mean(x), L(x) L(x)ᵀ), L lower triangular      (Kingma & Welling, 2019, section 2.5.1)."""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.multivariate import MultivariateNormal, lower_triangle
from vae_train.model.family import Posterior


class FullCovariance(Posterior):
    """A normal distribution with any covariance; the parameters are the mean and the D (D + 1) / 2 numbers of L.

    The diagonal of L is the exponential of the encoder's output, so that it is positive.

    Args:
        event_shape: shape of z.
    """

    is_factorized = False
    max_map_size = 256

    def __init__(self, event_shape: Shape) -> None:
        super().__init__(event_shape)
        self.parameter_shape = (self.size + self.size * (self.size + 1) // 2,)

    @override
    def forward(self, parameters: Tensor) -> MultivariateNormal:
        parameters = promote(parameters)
        free = lower_triangle(parameters[..., self.size :], self.size)
        factor = free.tril(-1) + torch.diag_embed(free.diagonal(dim1=-2, dim2=-1).exp())
        mean = parameters[..., : self.size].unflatten(-1, self.event_shape)
        return MultivariateNormal(mean, factor, len(self.event_shape))
