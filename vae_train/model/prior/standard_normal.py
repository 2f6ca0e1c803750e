"""p(z) = N(z; 0, I)."""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import Normal
from vae_train.model.base import Prior


class StandardNormal(Prior):
    """The standard normal distribution; it has no parameters.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
    """

    is_factorized = True

    def __init__(self, event_shape: Shape, data_shape: Shape) -> None:
        super().__init__(event_shape, data_shape)
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(event_shape), persistent=False)

    @override
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Normal:
        return Normal(self.zero, self.zero, len(self.event_shape))
