"""p(codes) = prod 1 / K, over all codes of z; K is the size of the codebook      (van den Oord et al., 2017)."""

import math

import torch
from torch import nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.codes import UniformCodes as UniformCodesDistribution
from vae_train.model.base import Encode, Prior


class UniformCodes(Prior):
    """Independent codes, all equally likely; it has no parameters, and is the same for every y.

    With it the rate of an image is constant: log K nats per code.

    Args:
        event_shape: shape of the indices of one z.
        data_shape: (C, H, W) of an image; not used.
        num_codes: K, number of values of an index.
    """

    supports = ("codes",)
    over_codes = True
    accepts_condition = False
    has_temperature = False

    def __init__(self, event_shape: Shape, data_shape: Shape, num_codes: int) -> None:
        super().__init__(event_shape, data_shape, num_codes)
        self.zero = nn.Buffer(torch.zeros(()), persistent=False)

    @override
    def forward(self, encode: Encode) -> UniformCodesDistribution:
        assert self.num_codes is not None
        return UniformCodesDistribution(self.zero - math.log(self.num_codes), self.num_codes, self.event_shape)
