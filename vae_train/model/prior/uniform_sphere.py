"""p(z) = 1 / area, on the unit sphere of R^D      (Davidson et al., 2018, section 3.3)."""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.sphere import UniformSphere as UniformSphereDistribution
from vae_train.model.base import Prior


class UniformSphere(Prior):
    """The uniform distribution on the unit sphere; it has no parameters, and is the same for every y.

    Args:
        event_shape: (D,).
        data_shape: (C, H, W) of an image; not used.
    """

    supports = ("sphere",)
    accepts_condition = False

    def __init__(self, event_shape: Shape, data_shape: Shape) -> None:
        super().__init__(event_shape, data_shape)
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(event_shape), persistent=False)

    @override
    def forward(self, encode: Callable[[Tensor], Distribution]) -> UniformSphereDistribution:
        return UniformSphereDistribution(self.zero)
