"""Convolutional networks for images of any height, width and number of channels.

A scale halves height and width, rounding up; the decoder walks the same sizes backwards, so that 37 x 53 pixels come
back as 37 x 53 without padding or cropping.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.base import Network
from vae_train.model.layers import Activation, Init, Norm, initialize, nonlinearity, norm2d
from vae_train.util.ranges import NonNegativeInt, PositiveInt

Downsample = Literal["stride", "maxpool", "avgpool"]


def widths(size: tuple[int, int], channels: list[int] | int, depth: int | None, max_channels: int) -> list[int]:
    """Channels of every scale.

    Args:
        size: height and width of the image.
        channels: those of every scale, or those of the first, which double from scale to scale.
        depth: number of scales where `channels` is one number; None halves until the shorter side is at most 4.
        max_channels: where the doubling ends.

    Raises:
        ValueError: `depth` contradicts `channels`, or there are more scales than the image can be halved.
    """
    possible = math.ceil(math.log2(max(size))) if max(size) > 1 else 0
    if isinstance(channels, list):
        if depth not in (None, len(channels)):
            raise ValueError(f"depth={depth} contradicts channels={channels}: leave depth null, or give one number")
        depth = len(channels)
    elif depth is None:
        depth = max(1, math.ceil(math.log2(min(size) / 4))) if min(size) > 4 else 1
    if depth > possible:
        raise ValueError(f"{depth} scales are too many: {size[0]}x{size[1]} pixels can be halved {possible} times")
    return channels if isinstance(channels, list) else [min(channels * 2**i, max_channels) for i in range(depth)]


def sizes(size: tuple[int, int], depth: int) -> list[tuple[int, int]]:
    """Height and width of every scale, from the image's own to the smallest: `depth` + 1 pairs."""
    result = [size]
    for _ in range(depth):
        height, width = result[-1]
        result.append(((height + 1) // 2, (width + 1) // 2))
    return result


class ConvEncoder(Network):
    """Convolutions that halve the image at every scale, then linear layers.

    Args:
        in_shape: (C, H, W).
        out_shape: shape of one output.
        channels: channels of every scale as a list, or of the first as a number, doubled from scale to scale.
        depth: number of scales where `channels` is a number; null halves until the shorter side is at most 4.
        max_channels: where the doubling ends.
        kernel: side of the kernels, odd.
        extra: further convolutions at every scale, before it is halved.
        downsample: a convolution with stride 2, or one with stride 1 and max or average pooling.
        dense: units of a hidden linear layer between convolutions and output; 0 for none.
        activation: the nonlinearity.
        norm: normalisation after every convolution; each looks at one image at a time.
        init: how the weights start, see `vae_train.model.layers.initialize`.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: list[PositiveInt] | PositiveInt,
        depth: PositiveInt | None,
        max_channels: PositiveInt,
        kernel: Literal[1, 3, 5, 7],
        extra: NonNegativeInt,
        downsample: Downsample,
        dense: NonNegativeInt,
        activation: Activation,
        norm: Norm,
        init: Init,
    ) -> None:
        super().__init__(in_shape, out_shape)
        inputs, height, width = in_shape
        per_scale = widths((height, width), channels, depth, max_channels)
        layers: list[nn.Module] = []
        for outputs in per_scale:
            for _ in range(extra):
                layers += _convolution(inputs, outputs, kernel, 1, activation, norm)
                inputs = outputs
            layers += _convolution(inputs, outputs, kernel, 2 if downsample == "stride" else 1, activation, norm)
            if downsample != "stride":
                pool = nn.MaxPool2d if downsample == "maxpool" else nn.AvgPool2d
                layers.append(pool(2, ceil_mode=True))
            inputs = outputs
        smallest = sizes((height, width), len(per_scale))[-1]
        features = inputs * smallest[0] * smallest[1]
        layers.append(nn.Flatten())
        self.layers = nn.Sequential(*layers, *_dense(features, dense, math.prod(out_shape), activation))
        initialize(self.layers, init)

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h).view(-1, *self.out_shape)


class ConvDecoder(Network):
    """Linear layers, then convolutions that double the image at every scale: the encoder backwards.

    Args:
        in_shape: shape of one input.
        out_shape: (C, H, W).
        channels: see `ConvEncoder`, in the encoder's order.
        depth: see `ConvEncoder`.
        max_channels: see `ConvEncoder`.
        kernel: see `ConvEncoder`.
        extra: further convolutions at every scale, after it is doubled.
        upsample: a transposed convolution with stride 2, or nearest neighbours and a convolution.
        dense: units of a hidden linear layer between input and convolutions; 0 for none.
        activation: the nonlinearity.
        norm: see `ConvEncoder`.
        init: see `ConvEncoder`.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: list[PositiveInt] | PositiveInt,
        depth: PositiveInt | None,
        max_channels: PositiveInt,
        kernel: Literal[1, 3, 5, 7],
        extra: NonNegativeInt,
        upsample: Literal["stride", "nearest"],
        dense: NonNegativeInt,
        activation: Activation,
        norm: Norm,
        init: Init,
    ) -> None:
        super().__init__(in_shape, out_shape)
        last, height, width = out_shape
        per_scale = widths((height, width), channels, depth, max_channels)[::-1]
        targets = sizes((height, width), len(per_scale))[::-1]
        inputs, smallest = per_scale[0], targets[0]
        layers = _dense(math.prod(in_shape), dense, inputs * smallest[0] * smallest[1], activation)
        layers += [nonlinearity(activation), nn.Unflatten(1, (inputs, *smallest))]
        for outputs, small, large in zip(per_scale, targets[:-1], targets[1:], strict=True):
            layers += _doubling(inputs, outputs, kernel, upsample, small, large)
            layers += [norm2d(norm, outputs), nonlinearity(activation)]
            for _ in range(extra):
                layers += _convolution(outputs, outputs, kernel, 1, activation, norm)
            inputs = outputs
        layers.append(nn.Conv2d(inputs, last, kernel, padding=kernel // 2))
        self.layers = nn.Sequential(nn.Flatten(), *layers)
        initialize(self.layers, init)

    def output_bias(self) -> Tensor:
        """See `Network.output_bias`: one number per channel."""
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        return last.bias.view(-1, 1, 1)

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, name: Activation, norm: Norm) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return [convolution, norm2d(norm, outputs), nonlinearity(name)]


def _dense(inputs: int, hidden: int, outputs: int, name: Activation) -> list[nn.Module]:
    if not hidden:
        return [nn.Linear(inputs, outputs)]
    return [nn.Linear(inputs, hidden), nonlinearity(name), nn.Linear(hidden, outputs)]


def _doubling(
    inputs: int, outputs: int, kernel: int, upsample: str, small: tuple[int, int], large: tuple[int, int]
) -> list[nn.Module]:
    if upsample == "nearest":
        return [nn.Upsample(size=large, mode="nearest"), nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)]
    # With padding k // 2 a transposed convolution makes 2 n - 1 pixels of n; the rest is output padding.
    rest = (large[0] - (2 * small[0] - 1), large[1] - (2 * small[1] - 1))
    return [nn.ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, rest)]
