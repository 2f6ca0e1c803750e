"""What priors made of flows, or of images, share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.flows.base import Reversed
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.normal import Normal
from vae_train.distributions.transformed import Transformed
from vae_train.model.base import Prior, Shape
from vae_train.model.start import evenly_spread
from vae_train.util.errors import ErrorDetail, UsageError

if TYPE_CHECKING:
    from vae_train.batch import Images


class FlowPrior(Prior):
    """log p(z) = log N(f(z); 0, I) + log |det df/dz| with a masked flow f, which starts near the identity.

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


def training_images(images: Images, like: Tensor) -> Tensor:
    """As many training images as `like` has rows, evenly spread over the data set, on its device and of its type.

    Args:
        images: the training images.
        like: tensor with shape `(M, C, H, W)`.

    Raises:
        UsageError: there are fewer.
    """
    count = len(like)
    if count > len(images):
        why = f"is more than the {len(images):,} training images: use at most that"
        raise UsageError([ErrorDetail(f"model.prior.components={count}", why)])
    return evenly_spread(images, count, like)
