"""log p(z) = log N(f(z); 0, I) + log |det df/dz|, f_i(z) a rational-quadratic spline in z_i with parameters of z_<i

(neural spline flows, Durkan et al., 2019, section 3.1, in their autoregressive form).
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


class NeuralSpline(Prior):
    """A neural spline flow: scoring takes one pass, drawing D. It starts near N(0, I), and is it beyond [-5, 5].

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: how many autoregressive layers.
        bins: pieces of each spline.
        hidden: sizes of the hidden layers of each one's network.
    """

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        transforms: PositiveInt,
        bins: PositiveInt,
        hidden: list[PositiveInt],
    ) -> None:
        super().__init__(event_shape, data_shape)
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(event_shape), persistent=False)
        self.flow = MaskedFlow(self.zero.numel(), 0, transforms, hidden, bins=bins, coupling=False)

    def forward(self, encode: Callable[[Tensor], Distribution]) -> Flowed:
        """See `Prior.forward`."""
        return Flowed(Normal(self.zero, self.zero, len(self.event_shape)), Reversed(self.flow()))
