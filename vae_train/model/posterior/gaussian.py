"""q(z | x) = N(z; mean(x), diag exp(log-variance(x)))      (Kingma & Welling, 2014, eq. 9)."""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.normal import Normal
from vae_train.model.family import Posterior


class Gaussian(Posterior):
    """A normal distribution with diagonal covariance; the parameters are the mean and the log-variance.

    Args:
        event_shape: shape of z.
        log_variance: bounds to which the log-variance is clamped; None for none.
    """

    def __init__(self, event_shape: Shape, log_variance: tuple[float, float] | None) -> None:
        super().__init__(event_shape)
        self.log_variance = log_variance
        first, *rest = event_shape
        self.parameter_shape = (2 * first, *rest)

    @override
    def forward(self, parameters: Tensor) -> Normal:
        mean, log_variance = promote(parameters).chunk(2, dim=-len(self.event_shape))
        if self.log_variance is not None:
            log_variance = log_variance.clamp(*self.log_variance)
        return Normal(mean, 0.5 * log_variance, len(self.event_shape))
