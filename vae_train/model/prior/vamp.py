"""p(z) = 1/M sum_j q(z | u_j), with pseudo-inputs u_j learned      (VampPrior; Tomczak & Welling, 2018, eq. 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.mixture import Mixture
from vae_train.model.base import Prior, Shape
from vae_train.model.family import Posterior
from vae_train.model.prior.base import training_images
from vae_train.util.ranges import PositiveInt

if TYPE_CHECKING:
    from vae_train.batch import Images


class Vamp(Prior):
    """A mixture, with equal weights, of the posteriors of M learned images.

    As in the authors' code, pseudo-inputs are cut off at the ends of the pixels' range, and a pixel that has left it
    learns no more.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image.
        components: M, number of pseudo-inputs.
        start: what they start from: "data" takes training images, evenly spread over the data set; "random" uniform
            noise.
    """

    supports = ("real", "sphere", "categorical", "joint")
    accepts_condition = False
    uses_encoder = True

    def __init__(
        self, event_shape: Shape, data_shape: Shape, components: PositiveInt, start: Literal["data", "random"]
    ) -> None:
        super().__init__(event_shape, data_shape)
        self.start = start
        self.pseudo_inputs = nn.Parameter(torch.rand(components, *data_shape))
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.logits: Tensor
        self.register_buffer("logits", torch.zeros(components), persistent=False)

    @classmethod
    @override
    def refusal(cls, posterior: type[Posterior], **knobs: Any) -> str | None:
        if posterior.has_density and posterior.has_tractable_density:
            return super().refusal(posterior, **knobs)
        lacks = "knows log q(z | x) at its own draws only" if posterior.has_density else "is a point mass"
        return (
            f"is made of posteriors q(z | u), and this one {lacks}. "
            "Use model/posterior=gaussian, or model/prior=mixture"
        )

    @torch.no_grad()
    def initialize(self, images: Images) -> None:
        """Learns the pixels' range, and copies training images if it is to start from them; see `Prior.initialize`."""
        found = training_images(images, self.pseudo_inputs)
        # Preprocessing may have taken the pixels out of [0, 1].
        self.low.copy_(found.min())
        self.high.copy_(found.max())
        random = self.low + (self.high - self.low) * self.pseudo_inputs
        self.pseudo_inputs.copy_(found if self.start == "data" else random)

    @override
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Mixture:
        return Mixture(encode(self.pseudo_inputs.clamp(self.low, self.high)), self.logits)
