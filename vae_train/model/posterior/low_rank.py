"""q(z | x) = N(z; mean(x), diag(scale(x)²) + V(x) V(x)ᵀ), V of few columns      (Rezende et al., 2014, section 4.3)."""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.multivariate import LowRankNormal
from vae_train.model.family import Posterior
from vae_train.util.ranges import PositiveInt


class LowRank(Posterior):
    """A normal distribution with a diagonal plus low-rank covariance; the parameters are mean, log-variance and V.

    Args:
        event_shape: shape of z.
        rank: number of columns of V.
    """

    is_factorized = False

    def __init__(self, event_shape: Shape, rank: PositiveInt) -> None:
        super().__init__(event_shape)
        self.rank = rank
        self.parameter_shape = (self.size * (2 + rank),)

    @override
    def forward(self, parameters: Tensor) -> LowRankNormal:
        sizes = [self.size, self.size, self.size * self.rank]
        mean, log_variance, values = promote(parameters).split(sizes, -1)
        mean, log_scale = (t.unflatten(-1, self.event_shape) for t in (mean, 0.5 * log_variance))
        return LowRankNormal(mean, log_scale, values.unflatten(-1, (self.size, self.rank)), len(self.event_shape))
