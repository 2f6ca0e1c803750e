"""What posteriors made of flows share."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.normal import Normal
from vae_train.model.family import Posterior


class FlowPosterior(Posterior):
    """Flows on top of a normal distribution; the parameters are its mean, its log-variance, and what the flows need.

    Args:
        event_shape: shape of z.
        levels: None, since z is continuous.
        further: how many numbers the flows need.
    """

    is_factorized = False

    def __init__(self, event_shape: Shape, levels: int | None, further: int) -> None:
        super().__init__(event_shape, levels)
        self.size = torch.Size(event_shape).numel()
        self.parameter_shape = (2 * self.size + further,)

    def parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and logarithm of the scale with shape `(*N, D)`, and the other numbers with shape `(*N, further)`."""
        mean, log_variance, others = promote(parameters).tensor_split([self.size, 2 * self.size], -1)
        return mean, 0.5 * log_variance, others

    def normal(self, mean: Tensor, log_scale: Tensor) -> Normal:
        """The normal distribution of z for moments with shape `(*N, D)`."""
        mean, log_scale = (t.unflatten(-1, self.event_shape) for t in (mean, log_scale))
        return Normal(mean, log_scale, len(self.event_shape))
