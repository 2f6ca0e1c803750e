"""The hierarchical VAE with two latent vectors and gated convolutional networks.

Tomczak & Welling, 2018, VAE with a VampPrior, arXiv:1705.07120, section 4, "convHVAE"; sizes as in the authors' code.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.architecture.base import sizes
from vae_train.model.base import Network, Prior
from vae_train.model.blocks.layers import Layers, initialize
from vae_train.model.condition import ConditionKind
from vae_train.model.family import Likelihood
from vae_train.model.hvae import HVAE
from vae_train.util.ranges import PositiveInt

STRIDES = (1, 2, 1, 2, 1)
"""Strides of the encoders' convolutions."""

TOP_KERNELS, KERNELS = (7, 3, 5, 3, 3), (3, 3, 3, 3, 3)
"""Their kernels, for the topmost posterior and for the lower one."""

LAST_CHANNELS = 6
"""Channels of their last feature map."""

DECODER_DEPTH = 4
"""Convolutions of the decoder, before the last one."""


class ConvHVAE(HVAE):
    """Two latent vectors, with gated convolutions in the encoders and the decoder.

    Args:
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        latents: see `HVAE`.
        hidden: see `HVAE`.
        channels: channels of the encoder at the image's own size; at half of it there are twice as many, which the
            decoder has, too.
        log_variance: see `HVAE`.
        prior: see `HVAE`.
        likelihood: family of p(x | z).
        condition: see `Hierarchy`.
        factor_sizes: see `Hierarchy`.
        output_bias: see `HVAE`.
    """

    def __init__(
        self,
        data_shape: Shape,
        levels: int | None,
        latents: list[PositiveInt],
        hidden: PositiveInt,
        channels: PositiveInt,
        log_variance: tuple[float, float] | None,
        prior: Callable[..., Prior],
        likelihood: Callable[..., Likelihood],
        condition: ConditionKind | None,
        factor_sizes: tuple[int, ...],
        output_bias: Literal["init", "data"],
    ) -> None:
        self.channels = channels
        super().__init__(
            data_shape,
            levels,
            latents,
            hidden,
            log_variance,
            prior=prior,
            likelihood=likelihood,
            condition=condition,
            factor_sizes=factor_sizes,
            output_bias=output_bias,
        )

    @override
    def image_networks(self, outputs: int) -> tuple[nn.Module, nn.Module, int]:
        _, height, width = self.data_shape
        features = LAST_CHANNELS * math.prod(sizes((height, width), STRIDES.count(2))[-1])
        last = nn.Linear(features, outputs)
        initialize(last, "he")
        return nn.Sequential(self._convolutions(TOP_KERNELS), last), self._convolutions(KERNELS), features

    @override
    def output_network(self, inputs: int) -> Network:
        wide = 2 * self.channels
        layers: list[nn.Module] = [nn.Linear(inputs, 2 * math.prod(self.data_shape)), nn.GLU()]
        layers.append(nn.Unflatten(1, self.data_shape))
        for number in range(DECODER_DEPTH):
            layers += [nn.Conv2d(wide if number else self.data_shape[0], 2 * wide, 3, padding=1), nn.GLU(1)]
        layers.append(nn.Conv2d(wide, self.likelihood.parameter_shape[0], 1))
        return Layers((inputs,), self.likelihood.parameter_shape, layers, "he")

    def _convolutions(self, kernels: Sequence[int]) -> nn.Sequential:
        """Gated convolutions of images, flattened."""
        narrow, wide = self.channels, 2 * self.channels
        widths, inputs = [narrow, narrow, wide, wide, LAST_CHANNELS], self.encoder_shape[0]
        layers: list[nn.Module] = []
        for outputs, kernel, stride in zip(widths, kernels, STRIDES, strict=True):
            layers += [nn.Conv2d(inputs, 2 * outputs, kernel, stride, kernel // 2), nn.GLU(1)]
            inputs = outputs
        features = nn.Sequential(*layers, nn.Flatten())
        initialize(features, "he")
        return features
