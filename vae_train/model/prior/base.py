"""Base classes of flow priors, and training images for initialising priors."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Images, Shape
from vae_train.distributions.flows.base import Reversed, Transformed
from vae_train.distributions.flows.convolutional import ConvFlow
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.normal import Normal
from vae_train.model.base import Encode, Prior
from vae_train.model.start import spaced_images
from vae_train.util.errors import UsageError
from vae_train.util.ranges import PositiveInt


class CenteredPrior(Prior):
    """A prior centred at 0, with a buffer of zeros on the model's device.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
    """

    def __init__(self, event_shape: Shape, data_shape: Shape) -> None:
        super().__init__(event_shape, data_shape)
        self.zero = nn.Buffer(torch.zeros(event_shape), persistent=False)


class FlowPrior(CenteredPrior):
    """log p(z) = log N(f(z); 0, I) + log |det df/dz| for a flow f, which starts near the identity.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
    """

    flow: MaskedFlow | ConvFlow
    """f, on the flattened event."""

    @override
    def forward(self, encode: Encode) -> Transformed:
        return Transformed(Normal(self.zero, self.zero, len(self.event_shape)), Reversed(self.flow()))


class AffineFlowPrior(FlowPrior):
    """A flow prior whose transforms are y = shift + scale · z.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: number of flow layers.
        hidden: sizes of the hidden layers of each transform's network, or their channels.
    """

    coupling: ClassVar[bool] = False
    """Whether the transforms are couplings, which are convolutional for maps."""

    def __init__(
        self, event_shape: Shape, data_shape: Shape, transforms: PositiveInt, hidden: list[PositiveInt]
    ) -> None:
        super().__init__(event_shape, data_shape)
        if self.coupling and len(self.event_shape) == 3:
            self.flow = ConvFlow(self.event_shape, transforms, hidden, bins=None)
        else:
            self.flow = MaskedFlow(self.size, 0, transforms, hidden, bins=None, coupling=self.coupling)


def training_images(images: Images, like: Tensor) -> Tensor:
    """Evenly spaced training images, as many as `like` has rows, with its device and type.

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
