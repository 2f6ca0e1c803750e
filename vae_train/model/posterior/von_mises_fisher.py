"""q(z | x) = vMF(z; mean(x), k(x)) on the unit sphere of R^D      (Davidson et al., 2018)."""

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.sphere import VonMisesFisher as VonMisesFisherDistribution
from vae_train.model.family import Posterior


class VonMisesFisher(Posterior):
    """A von Mises-Fisher distribution; the parameters are the mean, which is normalised, and k before softplus + 1.

    Args:
        event_shape: (D,); the sphere has D - 1 dimensions.
    """

    support = "sphere"
    is_factorized = False
    needs_vector = True

    def __init__(self, event_shape: Shape) -> None:
        super().__init__(event_shape)
        if len(event_shape) != 1 or event_shape[0] < 2:
            raise ValueError("the unit sphere needs a latent vector of at least 2 elements")
        self.parameter_shape = (event_shape[0] + 1,)

    @override
    def forward(self, parameters: Tensor) -> VonMisesFisherDistribution:
        parameters = promote(parameters)
        mean = F.normalize(parameters[..., :-1], dim=-1)
        return VonMisesFisherDistribution(mean, F.softplus(parameters[..., -1]) + 1)
