"""p(z) = 1/M sum_j q(z | u_j), with pseudo-inputs u_j learned      (VampPrior; Tomczak & Welling, 2018, eq. 9)."""

from typing import Any, Literal

import torch
from torch import nn
from typing_extensions import override

from vae_train.batch import Images, Shape
from vae_train.distributions.mixture import Mixture
from vae_train.model.base import Encode, Prior
from vae_train.model.prior.base import training_images
from vae_train.model.traits import LayerTraits
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import PositiveInt


class Vamp(Prior):
    """A mixture, with equal weights, of the posteriors of M learned pseudo-inputs.

    As in the authors' code, pseudo-inputs are clamped to the range of the pixels, and pixels outside receive no
    gradient.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image.
        components: M, number of pseudo-inputs.
        start: initial pseudo-inputs: "data" for evenly spaced training images, "random" for uniform noise.
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
        self.low = nn.Buffer(torch.zeros(()))
        self.high = nn.Buffer(torch.ones(()))
        self.logits = nn.Buffer(torch.zeros(components), persistent=False)

    @classmethod
    @override
    def check_compatible(cls, layer: LayerTraits, **settings: Any) -> Incompatible | None:
        if layer.is_quantized or (layer.has_density and layer.has_tractable_density):
            return super().check_compatible(layer, **settings)
        problem = "has a tractable log q(z | x) only at its own samples" if layer.has_density else "is a point mass"
        return Incompatible(
            f"is a mixture of posteriors q(z | u), but the posterior {problem}",
            {"posterior": "gaussian", "prior": "mixture"},
        )

    @override
    @torch.no_grad()
    def initialize(self, images: Images) -> None:
        x = training_images(images, self.pseudo_inputs)
        # Preprocessed pixels may be outside [0, 1].
        self.low.copy_(x.min())
        self.high.copy_(x.max())
        random = self.low + (self.high - self.low) * self.pseudo_inputs
        self.pseudo_inputs.copy_(x if self.start == "data" else random)

    @override
    def forward(self, encode: Encode) -> Mixture:
        return Mixture(encode(self.pseudo_inputs.clamp(self.low, self.high)), self.logits)
