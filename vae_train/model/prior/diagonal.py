"""p(z) = N(z; m, diag s²), with m and s learned."""

import torch
from torch import nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.normal import Normal
from vae_train.model.base import Encode, Prior


class Diagonal(Prior):
    """A normal distribution with a learned mean and a learned scale per element; it starts as N(0, I).

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
    """

    is_factorized = True

    def __init__(self, event_shape: Shape, data_shape: Shape) -> None:
        super().__init__(event_shape, data_shape)
        self.mean = nn.Parameter(torch.zeros(event_shape))
        self.log_scale = nn.Parameter(torch.zeros(event_shape))

    @override
    def forward(self, encode: Encode) -> Normal:
        return Normal(self.mean, self.log_scale, len(self.event_shape))
