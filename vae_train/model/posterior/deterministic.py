"""q(z | x) = δ(z - z(x)): an autoencoder (Ghosh et al., 2020, and Tolstikhin et al., 2018, use one)."""

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import PointMass
from vae_train.model.family import Posterior


class Deterministic(Posterior):
    """A point mass; the parameters are the point. It has neither rate nor ELBO, so only some objectives support it.

    Args:
        event_shape: shape of z.
    """

    has_density = False
    is_factorized = False
    has_tractable_density = False
    supports_stop_gradient = False

    @override
    def forward(self, parameters: Tensor) -> PointMass:
        return PointMass(parameters, len(self.event_shape))
