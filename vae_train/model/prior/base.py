"""Base class of priors that are flows, and the training images that other priors start from."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Images, Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.flows.base import Reversed
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.normal import Normal
from vae_train.distributions.transformed import Transformed
from vae_train.model.base import Prior
from vae_train.model.start import spaced_images
from vae_train.util.errors import UsageError
from vae_train.util.ranges import PositiveInt


class FlowPrior(Prior):
    """log p(z) = log N(f(z); 0, I) + log |det df/dz| for a masked flow f, which starts near the identity.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: see `MaskedFlow`.
        hidden: see `MaskedFlow`.
        bins: see `MaskedFlow`.
        coupling: see `MaskedFlow`.
    """

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        transforms: int,
        hidden: Sequence[int],
        bins: int | None,
        coupling: bool,
    ) -> None:
        super().__init__(event_shape, data_shape)
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(event_shape), persistent=False)
        self.flow = MaskedFlow(self.zero.numel(), 0, transforms, hidden, bins, coupling)

    @override
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Transformed:
        return Transformed(Normal(self.zero, self.zero, len(self.event_shape)), Reversed(self.flow()))


class AffineFlowPrior(FlowPrior):
    """A flow prior whose transforms are y = shift + scale · z.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: number of flow layers.
        hidden: sizes of the hidden layers of each one's network.
    """

    coupling: ClassVar[bool] = False

    def __init__(
        self, event_shape: Shape, data_shape: Shape, transforms: PositiveInt, hidden: list[PositiveInt]
    ) -> None:
        super().__init__(event_shape, data_shape, transforms, hidden, bins=None, coupling=self.coupling)


def training_images(images: Images, like: Tensor) -> Tensor:
    """As many training images as `like` has rows, evenly spaced over the data set, with its device and type.

    Args:
        images: the training images.
        like: tensor with shape `(M, C, H, W)`.

    Raises:
        UsageError: there are fewer training images.
    """
    count = len(like)
    if count > len(images):
        raise UsageError(f"the prior has {count:,} components, but there are only {len(images):,} training images")
    return spaced_images(images, count, like)
