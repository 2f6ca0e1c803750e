"""log p(z) = log N(f(z); 0, I) + log |det df/dz|, f_i(z) = z_i · exp(s(z_<i)) + t(z_<i)

(masked autoregressive flows, Papamakarios et al., 2017, eq. 3 to 6).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.distributions.flow import Flowed
from vae_train.distributions.normal import Normal
from vae_train.flows import MaskedFlow, Reversed
from vae_train.model.base import Prior, Shape
from vae_train.ranges import PositiveInt


class MaskedAutoregressive(Prior):
    """A masked autoregressive flow: scoring takes one pass, drawing D. It starts near N(0, I).

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: how many autoregressive layers.
        hidden: sizes of the hidden layers of each one's network.
    """

    def __init__(
        self, event_shape: Shape, data_shape: Shape, transforms: PositiveInt, hidden: list[PositiveInt]
    ) -> None:
        super().__init__(event_shape, data_shape)
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(event_shape), persistent=False)
        self.flow = MaskedFlow(self.zero.numel(), 0, transforms, hidden, bins=None, coupling=False)

    def forward(self, encode: Callable[[Tensor], Distribution]) -> Flowed:
        """See `Prior.forward`."""
        return Flowed(Normal(self.zero, self.zero, len(self.event_shape)), Reversed(self.flow()))
