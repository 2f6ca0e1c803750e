"""p(z) = 1/M sum_n N(z; mean of q(z | x_n), s² I), over training images x_n      (Norouzi et al., 2020, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.mixture import Mixture
from vae_train.distributions.normal import Normal
from vae_train.model.base import Prior, Shape
from vae_train.model.family import Posterior
from vae_train.model.prior.base import training_images
from vae_train.util.ranges import PositiveInt

if TYPE_CHECKING:
    from vae_train.batch import Images


class Exemplar(Prior):
    """A mixture, with equal weights, of normal distributions around the codes of training images; they share a scale.

    The images are M of the training images, evenly spread over the data set, and stay the same. What this leaves out
    of the paper: an image that is itself an exemplar is not left out of its own prior (leave-one-out, which is worth
    the less the more images there are beside the M); and the M are all scored, where the paper draws other images
    every step and keeps the nearest neighbours.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image.
        components: M, number of exemplars.
    """

    accepts_condition = False
    uses_encoder = True

    def __init__(self, event_shape: Shape, data_shape: Shape, components: PositiveInt) -> None:
        super().__init__(event_shape, data_shape)
        self.exemplars: Tensor
        self.logits: Tensor
        self.register_buffer("exemplars", torch.rand(components, *data_shape))
        self.register_buffer("logits", torch.zeros(components), persistent=False)
        self.log_scale = nn.Parameter(torch.zeros(()))

    @classmethod
    @override
    def refusal(cls, posterior: type[Posterior], **knobs: Any) -> str | None:
        if posterior.support == "real" and not posterior.has_density:
            return "is made for posteriors with a density, and this one is a point mass. Use model/posterior=gaussian"
        return super().refusal(posterior, **knobs)

    @torch.no_grad()
    def initialize(self, images: Images) -> None:
        """Copies the training images, see `Prior.initialize`."""
        self.exemplars.copy_(training_images(images, self.exemplars))

    @override
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Mixture:
        return Mixture(Normal(encode(self.exemplars).mean, self.log_scale, len(self.event_shape)), self.logits)
