"""p(z) = sum_j w_j N(z; m_j, diag s_j²), with w, m and s learned      (Tomczak & Welling, 2018, section 4, "MoG")."""

import torch
from torch import nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.mixture import Mixture as MixtureDistribution
from vae_train.distributions.normal import Normal
from vae_train.model.base import Encode, Prior
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class Mixture(Prior):
    """A mixture of normal distributions with diagonal covariances.

    It starts with scales of 1, equal weights and random means.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        components: M, number of components.
        std: initial standard deviation of the means. With 0 all components stay equal.
    """

    def __init__(self, event_shape: Shape, data_shape: Shape, components: PositiveInt, std: NonNegativeFloat) -> None:
        super().__init__(event_shape, data_shape)
        self.means = nn.Parameter(std * torch.randn(components, *event_shape))
        self.log_scales = nn.Parameter(torch.zeros(components, *event_shape))
        self.logits = nn.Parameter(torch.zeros(components))

    @override
    def forward(self, encode: Encode) -> MixtureDistribution:
        return MixtureDistribution(Normal(self.means, self.log_scales, len(self.event_shape)), self.logits)
