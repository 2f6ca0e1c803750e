"""-weight · (1 - MS-SSIM(x, mean(z))) instead of log p(x | z)                    (Wang et al., 2003, eq. 7)."""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.similarity import Similarity
from vae_train.model.family import Likelihood
from vae_train.util.ranges import PositiveFloat

MIN_SIDE_PIXELS = 7
"""Least height and width of an image."""


class MSSSIM(Likelihood):
    """A reconstruction loss that compares local structure instead of single pixels; it is not a likelihood.

    The parameters are log-odds of the image. Scales and window follow the size of the image: five scales from 176
    pixels on, one below 22, see `vae_train.distributions.similarity`. Data must be in [0, 1].

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; not used.
        weight: loss in nats of a reconstruction without any similarity.
    """

    is_bounded = True
    supports_mask = False
    warning = "MS-SSIM: not a likelihood"

    def __init__(self, event_shape: Shape, levels: int | None, weight: PositiveFloat) -> None:
        super().__init__(event_shape, levels)
        height, width = event_shape[-2:]
        if min(height, width) < MIN_SIDE_PIXELS:
            least = f"{MIN_SIDE_PIXELS}x{MIN_SIDE_PIXELS}"
            raise ValueError(f"needs images with at least {least} pixels, not {height}x{width}")
        self.weight = weight

    @override
    def forward(self, parameters: Tensor) -> Similarity:
        return Similarity(promote(parameters).sigmoid(), self.weight)
