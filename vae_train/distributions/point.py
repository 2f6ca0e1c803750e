"""A point mass: z = loc, always. It has no density, so no KL and no evidence bound either."""

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Located
from vae_train.rng import Rng


class PointMass(Located):
    """All the probability at one point.

    Args:
        loc: the point, with shape `(*batch, *event)`.
        event_ndim: how many of the last dimensions are the event.
    """

    has_density = False

    @property
    @override
    def variance(self) -> Tensor:
        return self.loc.new_zeros(self.loc.shape)

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        raise ValueError("a point mass has no density, so there is no rate and no bound")

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self.loc.expand(num, *self.loc.shape)
