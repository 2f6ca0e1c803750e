"""p(z) = 1/M sum_n N(z; mean of q(z | x_n), s² I), over training images x_n      (Norouzi et al., 2020, eq. 5)."""

from typing import Any

import torch
from torch import nn
from typing_extensions import override

from vae_train.batch import Images, Shape
from vae_train.distributions.mixture import Mixture
from vae_train.distributions.normal import Normal
from vae_train.model.base import Encode, Prior
from vae_train.model.prior.base import training_images
from vae_train.model.traits import LayerTraits
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import PositiveInt


class Exemplar(Prior):
    """A mixture, with equal weights, of normal distributions around the encodings of training images, with one scale.

    The exemplars are M fixed training images, evenly spaced over the data set. Deviations from the
    paper: an exemplar counts in its own prior, which matters less for many training images; and
    all M components are evaluated, whereas the paper samples new images at every step and uses
    their nearest neighbours.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image.
        components: M, number of exemplars.
    """

    accepts_condition = False
    uses_encoder = True

    def __init__(self, event_shape: Shape, data_shape: Shape, components: PositiveInt) -> None:
        super().__init__(event_shape, data_shape)
        self.exemplars = nn.Buffer(torch.rand(components, *data_shape))
        self.logits = nn.Buffer(torch.zeros(components), persistent=False)
        self.log_scale = nn.Parameter(torch.zeros(()))

    @classmethod
    @override
    def check_compatible(cls, layer: LayerTraits, **settings: Any) -> Incompatible | None:
        if layer.support == "real" and not layer.has_density:
            return Incompatible("needs a posterior with a density, not a point mass", {"posterior": "gaussian"})
        return super().check_compatible(layer, **settings)

    @override
    @torch.no_grad()
    def initialize(self, images: Images) -> None:
        self.exemplars.copy_(training_images(images, self.exemplars))

    @override
    def forward(self, encode: Encode) -> Mixture:
        return Mixture(Normal(encode(self.exemplars).mean, self.log_scale, len(self.event_shape)), self.logits)
