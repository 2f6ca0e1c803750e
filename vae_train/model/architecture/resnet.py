"""Residual networks between images of any height, width and number of channels, and vectors or maps of any size."""

import math
from typing import Literal

from torch import nn

from vae_train.batch import Shape
from vae_train.model.architecture.base import map_size, scale_widths, scales_of
from vae_train.model.blocks.layers import Activation, Init
from vae_train.model.blocks.resampling import Resample, Size
from vae_train.model.blocks.residual import (
    BlockDownsample,
    BlockNorm,
    BlockStyle,
    BlockUpsample,
    ResidualBlock,
    ResidualNetwork,
    SelfAttention,
    upsampling,
)
from vae_train.util.ranges import NonNegativeInt, PositiveInt


class ResNetEncoder(ResidualNetwork):
    """Residual blocks that halve the image at every scale, then a convolution to maps or linear layers to vectors.

    Maps of any size are possible: features are resampled from the next larger scale, before the last convolution.

    Args:
        in_shape: (C, H, W).
        out_shape: shape of one output: (C', H', W') for maps, or (D,).
        channels: channels of every scale from the image's own size on, as a list; or of the first one as a number,
            doubled at every further scale.
        depth: number of halvings if `channels` is a number. None halves until the size of the map, or for vectors until
            the shorter side is at most 4.
        max_channels: largest number of channels if `channels` is a number.
        blocks: residual blocks per scale below the image's own size; a number or a list.
        full_size_blocks: residual blocks at the image's own size.
        attention: scales with at most this many pixels have self-attention; 0 for none.
        kernel: odd side of the kernels.
        downsample: "stride" for convolutions with stride 2, "avgpool" for averages of 2 x 2 pixels before convolutions.
        dense: size of a hidden linear layer between convolutions and vectors; 0 for none.
        activation: the nonlinearity.
        norm: "group" for group normalisation, "weight" for weight normalisation (Salimans & Kingma, 2016,
            arXiv:1602.07868), "none".
        init: initialisation of the weights, see `vae_train.model.blocks.layers.initialize`.
        checkpointing: compute blocks again in the backward pass, to save memory; gradients stay the same.

    Raises:
        ValueError: the numbers of scales contradict each other, or there are too many for the image or the map.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: list[PositiveInt] | PositiveInt,
        depth: NonNegativeInt | None,
        max_channels: PositiveInt,
        blocks: list[PositiveInt] | PositiveInt,
        full_size_blocks: NonNegativeInt,
        attention: NonNegativeInt,
        kernel: Literal[3, 5, 7],
        downsample: BlockDownsample,
        dense: NonNegativeInt,
        activation: Activation,
        norm: BlockNorm,
        init: Init,
        checkpointing: bool,
    ) -> None:
        inputs, height, width = in_shape
        style = BlockStyle(kernel, activation, norm, checkpointing)
        latent = map_size(out_shape)
        widths = scale_widths((height, width), latent, channels, depth, max_channels)
        scales = scales_of((height, width), widths, blocks, full_size_blocks, attention)
        layers: list[nn.Module] = [style.convolution(inputs, widths[0])]
        before = widths[0]
        for number, scale in enumerate(scales):
            for block in range(scale.blocks):
                down = downsample if number and not block else None
                layers.append(ResidualBlock(before, scale.channels, style, down=down))
                before = scale.channels
            if scale.attention:
                layers.append(SelfAttention(before, style))
        smallest = scales[-1].size
        layers += style.preactivation(before)
        if latent is not None:
            layers += _resampled(smallest, latent)
            layers.append(nn.Conv2d(before, out_shape[0], kernel, padding=kernel // 2))
        else:
            features = before * math.prod(smallest)
            hidden = [style.linear(features, dense), style.nonlinearity()] if dense else []
            layers += [nn.Flatten(), *hidden, nn.Linear(dense or features, math.prod(out_shape))]
        super().__init__(in_shape, out_shape, layers, init)


class ResNetDecoder(ResidualNetwork):
    """The reverse of `ResNetEncoder`: residual blocks that double maps at every scale.

    Maps of any size are possible: after the first convolution they are resampled to the next larger scale.

    Args:
        in_shape: shape of one input: (C, H, W) for maps, or (D,).
        out_shape: (C', H', W') of the image.
        channels: see `ResNetEncoder`, in the encoder's order.
        depth: see `ResNetEncoder`.
        max_channels: see `ResNetEncoder`.
        blocks: see `ResNetEncoder`, in the encoder's order; the last of a scale's blocks changes the size.
        full_size_blocks: see `ResNetEncoder`.
        attention: see `ResNetEncoder`.
        kernel: see `ResNetEncoder`.
        upsample: "nearest" repeats pixels, "bilinear" interpolates them; a convolution follows.
        dense: size of a hidden linear layer between vectors and convolutions; 0 for none.
        activation: see `ResNetEncoder`.
        norm: see `ResNetEncoder`.
        init: see `ResNetEncoder`.
        checkpointing: see `ResNetEncoder`.

    Raises:
        ValueError: see `ResNetEncoder`.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: list[PositiveInt] | PositiveInt,
        depth: NonNegativeInt | None,
        max_channels: PositiveInt,
        blocks: list[PositiveInt] | PositiveInt,
        full_size_blocks: NonNegativeInt,
        attention: NonNegativeInt,
        kernel: Literal[3, 5, 7],
        upsample: BlockUpsample,
        dense: NonNegativeInt,
        activation: Activation,
        norm: BlockNorm,
        init: Init,
        checkpointing: bool,
    ) -> None:
        outputs, height, width = out_shape
        style = BlockStyle(kernel, activation, norm, checkpointing)
        latent = map_size(in_shape)
        widths = scale_widths((height, width), latent, channels, depth, max_channels)
        scales = scales_of((height, width), widths, blocks, full_size_blocks, attention)
        smallest, before = scales[-1].size, widths[-1]
        layers: list[nn.Module] = []
        if latent is None:
            shape = (before, *smallest)
            hidden = [style.linear(math.prod(in_shape), dense), style.nonlinearity()] if dense else []
            last = style.linear(dense or math.prod(in_shape), math.prod(shape))
            layers += [nn.Flatten(), *hidden, last, nn.Unflatten(1, shape)]
        else:
            layers += [style.convolution(in_shape[0], before), *_resampled(latent, smallest)]
        for number, scale in reversed(list(enumerate(scales))):
            plain = scale.blocks - 1 if number else scale.blocks
            layers += [ResidualBlock(before, before, style) for _ in range(plain)]
            if scale.attention:
                layers.append(SelfAttention(before, style))
            if number:
                larger = scales[number - 1]
                up = upsampling(upsample, scale.size, larger.size)
                layers.append(ResidualBlock(before, larger.channels, style, up=up))
                before = larger.channels
        layers += [*style.preactivation(before), nn.Conv2d(before, outputs, kernel, padding=kernel // 2)]
        super().__init__(in_shape, out_shape, layers, init)


def _resampled(before: Size, after: Size) -> list[nn.Module]:
    return [] if before == after else [Resample(before, after)]
