"""p(z) = N(z; 0, I)."""

from typing_extensions import override

from vae_train.distributions.normal import Normal
from vae_train.model.base import Encode
from vae_train.model.prior.base import CenteredPrior


class StandardNormal(CenteredPrior):
    """The standard normal distribution; it has no parameters.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
    """

    is_factorized = True

    @override
    def forward(self, encode: Encode) -> Normal:
        return Normal(self.zero, self.zero, len(self.event_shape))
