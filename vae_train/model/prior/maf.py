"""log p(z) = log N(f(z); 0, I) + log |det df/dz|, f_i(z) = z_i · exp(s(z_<i)) + t(z_<i)

(masked autoregressive flows, Papamakarios et al., 2017, eq. 3 to 6).
"""

from __future__ import annotations

from vae_train.batch import Shape
from vae_train.model.prior.base import FlowPrior
from vae_train.util.ranges import PositiveInt


class MaskedAutoregressive(FlowPrior):
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
        super().__init__(event_shape, data_shape, transforms, hidden, bins=None, coupling=False)
