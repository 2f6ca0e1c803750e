"""A kernel density estimate."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape, evenly_spaced
from vae_train.distributions.mixture import Mixture
from vae_train.distributions.normal import Normal
from vae_train.model.base import Encode
from vae_train.model.prior.fitted.base import ChunkedMixture, FittedPrior, mean_and_std
from vae_train.util.ranges import PositiveFloat, PositiveInt

BANDWIDTH_FACTORS = tuple(2 ** (k / 2) for k in range(-6, 5))
"""Multiples of Scott's bandwidth that are tried on held-out encodings."""

MIN_ENCODINGS = 2


class KernelDensity(FittedPrior):
    """A normal kernel on each of many encodings, all with the same scale.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        centers: maximal number of kernels.
        bandwidth: the kernel's standard deviation as a multiple of the encodings'; "scott" is n^(-1 / (D + 4)) (Scott,
            "Multivariate Density Estimation", 1992), "validated" is the multiple of it that maximises the likelihood of
            held-out encodings.
    """

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        centers: PositiveInt,
        bandwidth: Literal["scott", "validated"] | PositiveFloat,
    ) -> None:
        super().__init__(event_shape, data_shape)
        self.num_centers, self.bandwidth = centers, bandwidth
        self.centers: Tensor = nn.Buffer(torch.zeros(0, self.size))
        self.log_scale = nn.Buffer(torch.zeros(self.size))

    @override
    def fit(self, z: Tensor, held_out: Tensor, seed: int) -> None:
        if len(z) < MIN_ENCODINGS:
            raise ValueError(f"{len(z)} encodings of training images are too few for a kernel density estimate")
        self.centers = z[evenly_spaced(len(z), self.num_centers)].to(self.centers)
        _, std = mean_and_std(z)
        scott = len(self.centers) ** (-1 / (self.size + 4))
        if self.bandwidth == "validated":
            bandwidth = max((scott * f for f in BANDWIDTH_FACTORS), key=lambda b: self._score(std, b, held_out))
        else:
            bandwidth = scott if self.bandwidth == "scott" else float(self.bandwidth)
        self._set_scale(std, bandwidth)

    def _set_scale(self, std: Tensor, bandwidth: float) -> None:
        self.log_scale.copy_(std.log() + math.log(bandwidth))

    def _score(self, std: Tensor, bandwidth: float, held_out: Tensor) -> float:
        """Returns the mean log-density of held-out encodings with a bandwidth."""
        self._set_scale(std, bandwidth)
        return self.log_prob(held_out.to(self.centers)).mean().item()

    @override
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.centers = torch.zeros_like(weights["centers"])  # a small data set has fewer than `centers`
        super().load_weights(weights)

    @override
    def forward(self, encode: Encode) -> Mixture:
        centers, log_scale = (t.unflatten(-1, self.event_shape) for t in (self.centers, self.log_scale))
        kernels = Normal(centers, log_scale, len(self.event_shape))
        return ChunkedMixture(kernels, self.centers.new_zeros(len(self.centers)))
