"""p(z) = 1 / area, on the unit sphere of R^D      (Davidson et al., 2018, section 3.3)."""

from typing_extensions import override

from vae_train.distributions.sphere import UniformSphere as UniformSphereDistribution
from vae_train.model.base import Encode
from vae_train.model.prior.base import CenteredPrior


class UniformSphere(CenteredPrior):
    """The uniform distribution on the unit sphere; it has no parameters, and is the same for every y.

    Args:
        event_shape: (D,).
        data_shape: (C, H, W) of an image; not used.
    """

    supports = ("sphere",)
    accepts_condition = False
    has_temperature = False

    @override
    def forward(self, encode: Encode) -> UniformSphereDistribution:
        return UniformSphereDistribution(self.zero)
