"""Convolutional networks between images of any height, width and number of channels, and vectors or spatial latents."""

import math
from typing import Literal

from torch import nn

from vae_train.batch import Shape
from vae_train.model.architecture.base import (
    Style,
    convolution,
    doublings,
    halvings,
    max_depth,
    sizes,
    spatial_widths,
    suggest_scale,
    widths,
)
from vae_train.model.blocks.layers import Activation, Downsample, Init, Layers, Norm, Upsample, nonlinearity
from vae_train.util.errors import IncompatibleError
from vae_train.util.ranges import NonNegativeInt, PositiveInt


class ConvEncoder(Layers):
    """Convolutions that halve the image at every scale, then linear layers.

    Args:
        in_shape: (C, H, W).
        out_shape: shape of one output.
        channels: channels of every scale as a list, or of the first scale as a number, doubled at every further scale.
        depth: number of scales if `channels` is a number; null halves until the shorter side is at most 4.
        max_channels: largest number of channels.
        kernel: odd side of the kernels.
        extra: additional convolutions per scale, before downsampling.
        downsample: kind of downsampling: convolutions with stride 2, or pooling.
        dense: size of a hidden linear layer between convolutions and output; 0 for none.
        activation: the nonlinearity.
        norm: normalisation after every convolution, separately for each image.
        init: initialisation of the weights, see `vae_train.model.blocks.layers.initialize`.
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
        inputs, height, width = in_shape
        per_scale = widths((height, width), channels, depth, max_channels)
        layers = halvings(inputs, per_scale, Style(kernel, extra, activation, norm), downsample)
        features = per_scale[-1] * math.prod(sizes((height, width), len(per_scale))[-1])
        layers += [nn.Flatten(), *_dense(features, dense, math.prod(out_shape), activation)]
        super().__init__(in_shape, out_shape, layers, init)


class ConvDecoder(Layers):
    """Linear layers, then convolutions that double the image at every scale: the reverse of the encoder.

    Args:
        in_shape: shape of one input.
        out_shape: (C, H, W).
        channels: see `ConvEncoder`, in the encoder's order.
        depth: see `ConvEncoder`.
        max_channels: see `ConvEncoder`.
        kernel: see `ConvEncoder`.
        extra: additional convolutions per scale, after upsampling.
        upsample: kind of upsampling, see `vae_train.model.blocks.layers.Upsample`.
        dense: size of a hidden linear layer between input and convolutions; 0 for none.
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
        upsample: Upsample,
        dense: NonNegativeInt,
        activation: Activation,
        norm: Norm,
        init: Init,
    ) -> None:
        outputs, height, width = out_shape
        per_scale = widths((height, width), channels, depth, max_channels)
        scales = sizes((height, width), len(per_scale))
        smallest = (per_scale[-1], *scales[-1])
        layers = [nn.Flatten(), *_dense(math.prod(in_shape), dense, math.prod(smallest), activation)]
        layers += [nonlinearity(activation), nn.Unflatten(1, smallest)]
        layers += doublings(per_scale, scales, Style(kernel, extra, activation, norm), upsample)
        layers.append(nn.Conv2d(per_scale[0], outputs, kernel, padding=kernel // 2))
        super().__init__(in_shape, out_shape, layers, init)


class ConvSpatialEncoder(Layers):
    """Convolutions that halve the image until it has the height and width of the latent.

    Parameters that are not spatial, such as those of a flow, come from a final linear layer.

    Args:
        in_shape: (C, H, W).
        out_shape: (C', H', W') with H' x W' one of the scales of the image, or (D,).
        channels: channels of the first scale, doubled at every further scale.
        max_channels: largest number of channels.
        kernel: odd side of the kernels.
        extra: additional convolutions per scale, before downsampling.
        downsample: kind of downsampling: convolutions with stride 2, or pooling.
        activation: the nonlinearity.
        norm: normalisation after every convolution, separately for each image.
        init: initialisation of the weights, see `vae_train.model.blocks.layers.initialize`.

    Raises:
        ValueError: halving the image never gives the height and width of the latent.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: PositiveInt,
        max_channels: PositiveInt,
        kernel: Literal[1, 3, 5, 7],
        extra: NonNegativeInt,
        downsample: Downsample,
        activation: Activation,
        norm: Norm,
        init: Init,
    ) -> None:
        inputs, height, width = in_shape
        size, style = (height, width), Style(kernel, extra, activation, norm)
        if len(out_shape) == 3:
            per_scale = spatial_widths(size, (out_shape[1], out_shape[2]), channels, max_channels)
        else:
            per_scale = widths(size, channels, None, max_channels)
        layers = halvings(inputs, per_scale, style, downsample)
        last = [inputs, *per_scale][-1]
        if len(out_shape) == 3:
            layers.append(nn.Conv2d(last, out_shape[0], kernel, padding=kernel // 2))
        else:
            features = last * math.prod(sizes(size, len(per_scale))[-1])
            layers += [nn.Flatten(), nn.Linear(features, math.prod(out_shape))]
        super().__init__(in_shape, out_shape, layers, init)


class ConvSpatialDecoder(Layers):
    """Convolutions that double the latent up to the height and width of the image: the reverse of the encoder.

    Args:
        in_shape: (C, H, W) of the latent, with H x W one of the scales of the image.
        out_shape: (C, H, W) of the image.
        channels: see `ConvSpatialEncoder`.
        max_channels: see `ConvSpatialEncoder`.
        kernel: see `ConvSpatialEncoder`.
        extra: additional convolutions per scale, after upsampling.
        upsample: kind of upsampling, see `vae_train.model.blocks.layers.Upsample`.
        activation: the nonlinearity.
        norm: see `ConvSpatialEncoder`.
        init: see `ConvSpatialEncoder`.

    Raises:
        ValueError: the latent is a vector, or halving the image never gives its height and width.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: PositiveInt,
        max_channels: PositiveInt,
        kernel: Literal[1, 3, 5, 7],
        extra: NonNegativeInt,
        upsample: Upsample,
        activation: Activation,
        norm: Norm,
        init: Init,
    ) -> None:
        outputs, height, width = out_shape
        if len(in_shape) != 3:
            reason, image = f"needs latents with shape [channels, height, width], not {list(in_shape)}", (height, width)
            raise IncompatibleError(suggest_scale(reason, sizes(image, max_depth(image))))
        size, style = (height, width), Style(kernel, extra, activation, norm)
        per_scale = spatial_widths(size, (in_shape[1], in_shape[2]), channels, max_channels)
        first = per_scale[-1] if per_scale else channels
        layers = convolution(in_shape[0], first, style)
        if per_scale:
            layers += doublings(per_scale, sizes(size, len(per_scale)), style, upsample)
        layers.append(nn.Conv2d(per_scale[0] if per_scale else first, outputs, kernel, padding=kernel // 2))
        super().__init__(in_shape, out_shape, layers, init)


def _dense(inputs: int, hidden: int, outputs: int, name: Activation) -> list[nn.Module]:
    if not hidden:
        return [nn.Linear(inputs, outputs)]
    return [nn.Linear(inputs, hidden), nonlinearity(name), nn.Linear(hidden, outputs)]
