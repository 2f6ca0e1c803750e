"""log p(z) = log N(f(z); 0, I) + log |det df/dz|, f of affine coupling layers      (Dinh et al., 2017, eq. 2 to 8)

y_a = z_a · exp(c) + d,  y_b = z_b · exp(s(z_a)) + t(z_a);  a and b change places from each layer to the next. (The
original leaves y_a = z_a; constants c and d cost nothing.)
"""

from __future__ import annotations

from vae_train.batch import Shape
from vae_train.model.prior.base import FlowPrior
from vae_train.util.ranges import PositiveInt


class RealNVP(FlowPrior):
    """A RealNVP flow: drawing and scoring are equally fast. It starts near N(0, I).

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: how many coupling layers.
        hidden: sizes of the hidden layers of each one's network.

    Raises:
        ValueError: there is one latent, of which there are no two halves.
    """

    def __init__(
        self, event_shape: Shape, data_shape: Shape, transforms: PositiveInt, hidden: list[PositiveInt]
    ) -> None:
        super().__init__(event_shape, data_shape, transforms, hidden, bins=None, coupling=True)
