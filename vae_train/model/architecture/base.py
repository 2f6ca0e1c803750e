"""Building blocks of convolutional networks for images of any height, width and number of channels.

A scale halves height and width, rounding up. A decoder uses the same sizes in reverse, so that 37 x 53 pixels come back
as 37 x 53 without padding or cropping.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from vae_train.batch import Shape
from vae_train.model.blocks.layers import Activation, Downsample, Norm, Upsample, nonlinearity, norm2d
from vae_train.model.blocks.resampling import Size
from vae_train.util.errors import Incompatible, IncompatibleError
from vae_train.util.text import counted

SMALLEST_SIDE = 4
"""Residual networks halve images until their shorter side is at most this long; a side of one pixel does not count."""

LATENT_SIDE = 4
"""Height of latents that is suggested if the configured one does not fit."""


class Scale(NamedTuple):
    """One scale of a residual network."""

    size: Size
    """Height and width."""
    channels: int
    blocks: int
    """Residual blocks. From the second scale on, the first of them changes the size."""
    attention: bool
    """Whether self-attention follows the blocks."""


class Style(NamedTuple):
    """Settings of all convolutions of a network."""

    kernel: int
    """Odd side of the kernels."""
    extra: int
    """Additional convolutions per scale."""
    activation: Activation
    norm: Norm


def sizes(size: Size, depth: int) -> list[Size]:
    """Height and width of every scale, from the image's own to the smallest: `depth` + 1 pairs."""
    height, width = size
    return [(-(-height // 2**scale), -(-width // 2**scale)) for scale in range(depth + 1)]


def max_depth(size: Size) -> int:
    """Number of times that an image can be halved until it is one pixel."""
    return (max(size) - 1).bit_length()


def widths(size: Size, channels: list[int] | int, depth: int | None, max_channels: int) -> list[int]:
    """The channels of every scale.

    Args:
        size: height and width of the image.
        channels: channels of every scale, or of the first scale, doubled at every further scale.
        depth: number of scales if `channels` is one number; None halves until the shorter side is at most 4.
        max_channels: largest number of channels.

    Raises:
        ValueError: `depth` contradicts `channels`, or there are more scales than the image can be halved.
    """
    if isinstance(channels, list):
        depth = _listed_depth(channels, len(channels), depth)
    elif depth is None:
        depth = max(1, math.ceil(math.log2(min(size) / 4))) if min(size) > 4 else 1
    limit = max_depth(size)
    if depth > limit:
        raise ValueError(
            f"cannot have {counted(depth, 'scale')}: {_text(size)} pixels can be halved {counted(limit, 'time')}"
        )
    return _doubled(channels, depth, max_channels)


def suggest_scale(reason: str, scales: Sequence[Size]) -> Incompatible:
    """An incompatibility of the latent shape with an image's scales, which suggests a shape that fits."""
    height, width = min(scales, key=lambda scale: abs(scale[0] - LATENT_SIDE))
    sizes = ", ".join(map(_text, scales))
    return Incompatible(f"{reason} (its scales are {sizes})", {"latent_shape": f"[4,{height},{width}]"})


def spatial_widths(image: Size, latent: Size, channels: int, max_channels: int) -> list[int]:
    """Channels of every scale between an image and a latent.

    Raises:
        IncompatibleError: halving the image never gives the height and width of the latent.
    """
    scales = sizes(image, max_depth(image))
    if latent not in scales:
        reason = f"latents of {_text(latent)} are not a scale of images of {_text(image)} pixels"
        suggestion = suggest_scale(reason, scales)
        raise IncompatibleError(suggestion._replace(instead={**suggestion.instead, "model": "resnet"}))
    depth = scales.index(latent)
    return widths(image, channels, depth, max_channels) if depth else []


def map_size(shape: Shape) -> Size | None:
    """Height and width of a map; None for a vector."""
    return (shape[1], shape[2]) if len(shape) == 3 else None


def scale_widths(
    image: Size, latent: Size | None, channels: list[int] | int, depth: int | None, max_channels: int
) -> list[int]:
    """Channels of every scale from the image's own size to the smallest.

    Args:
        image: height and width of the image.
        latent: height and width of the map that the network has to reach; None for a vector.
        channels: see `vae_train.model.architecture.resnet.ResNetEncoder`.
        depth: see `vae_train.model.architecture.resnet.ResNetEncoder`.
        max_channels: see `vae_train.model.architecture.resnet.ResNetEncoder`.

    Raises:
        ValueError: `depth` contradicts `channels`, or there are too many scales for the image or the map.
    """
    scales = sizes(image, max_depth(image))
    if latent is not None and not _covers(image, latent):
        reason = f"latents of {_text(latent)} are larger than images of {_text(image)} pixels"
        raise IncompatibleError(suggest_scale(reason, scales))
    limit = max(number for number, size in enumerate(scales) if latent is None or _covers(size, latent))
    if channels == []:
        raise ValueError("channels=[] has no scale; it needs one number per scale, or a single number")
    if isinstance(channels, list):
        depth = _listed_depth(channels, len(channels) - 1, depth)
    elif depth is None and latent is None:
        shorter = min(image) if min(image) > 1 else max(image)
        depth = max(0, math.ceil(math.log2(shorter / SMALLEST_SIDE)))
    elif depth is None:
        depth = limit
    if depth > max_depth(image):
        times = counted(max_depth(image), "time")
        raise ValueError(f"cannot have {counted(depth, 'halving')}: {_text(image)} pixels can be halved {times}")
    if latent is not None and depth > limit:
        raise ValueError(
            f"{depth} halvings of {_text(image)} pixels give {_text(scales[depth])}, less than latents of "
            f"{_text(latent)}; use at most {limit}"
        )
    return _doubled(channels, depth + 1, max_channels)


def scales_of(
    image: Size, channels: list[int], blocks: list[int] | int, full_size_blocks: int, attention: int
) -> list[Scale]:
    """The scales of a network, from the image's own size to the smallest.

    Raises:
        ValueError: `blocks` is a list with another number of scales.
    """
    depth = len(channels) - 1
    if isinstance(blocks, list) and len(blocks) != depth:
        raise ValueError(
            f"blocks={blocks} has {counted(len(blocks), 'number')}, but {_text(image)} pixels are halved "
            f"{counted(depth, 'time')}"
        )
    counts = [full_size_blocks, *(blocks if isinstance(blocks, list) else [blocks] * depth)]
    has_attention = [math.prod(size) <= attention for size in sizes(image, depth)]
    return list(map(Scale, sizes(image, depth), channels, counts, has_attention))


def halvings(inputs: int, channels: list[int], style: Style, downsample: Downsample) -> list[nn.Module]:
    """Layers that halve an image once per scale.

    Args:
        inputs: channels of the image.
        channels: channels of every scale, from the image on.
        style: settings of the convolutions.
        downsample: kind of downsampling: convolutions with stride 2, or pooling.
    """
    layers: list[nn.Module] = []
    for outputs in channels:
        for _ in range(style.extra):
            layers += convolution(inputs, outputs, style)
            inputs = outputs
        layers += convolution(inputs, outputs, style, stride=2 if downsample == "stride" else 1)
        if downsample != "stride":
            pool = nn.MaxPool2d if downsample == "maxpool" else nn.AvgPool2d
            layers.append(pool(2, ceil_mode=True))
        inputs = outputs
    return layers


def doublings(channels: list[int], scales: list[Size], style: Style, upsample: Upsample) -> list[nn.Module]:
    """Layers that double an image once per scale.

    Args:
        channels: channels of every scale, from the image on; the input has those of the last scale.
        scales: height and width of every scale, from the image's own to the smallest.
        style: settings of the convolutions.
        upsample: kind of upsampling, see `vae_train.model.blocks.layers.Upsample`.
    """
    layers: list[nn.Module] = []
    inputs = channels[-1]
    for outputs, small, large in zip(channels[::-1], scales[:0:-1], scales[-2::-1], strict=True):
        layers += _doubling(inputs, outputs, style.kernel, upsample, small, large)
        layers += [norm2d(style.norm, outputs), nonlinearity(style.activation)]
        for _ in range(style.extra):
            layers += convolution(outputs, outputs, style)
        inputs = outputs
    return layers


def convolution(inputs: int, outputs: int, style: Style, stride: int = 1) -> list[nn.Module]:
    """A convolution, its normalisation and its nonlinearity."""
    conv = nn.Conv2d(inputs, outputs, style.kernel, stride, style.kernel // 2)
    return [conv, norm2d(style.norm, outputs), nonlinearity(style.activation)]


def _doubling(inputs: int, outputs: int, kernel: int, upsample: Upsample, small: Size, large: Size) -> list[nn.Module]:
    if upsample == "nearest":
        return [nn.Upsample(size=large, mode="nearest"), nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)]
    # With padding k // 2, an odd kernel maps n pixels to 2 n - 1; the next even one, with more padding, to 2 n - 2. The
    # rest is output padding.
    is_even = upsample == "even"
    top, left = (kernel // 2 + (is_even and side % 2) for side in large)
    made = [2 * (n - 1) - 2 * padding + kernel + is_even for n, padding in zip(small, (top, left), strict=True)]
    rest = (large[0] - made[0], large[1] - made[1])
    return [nn.ConvTranspose2d(inputs, outputs, kernel + is_even, 2, (top, left), rest)]


def _listed_depth(channels: list[int], implied: int, depth: int | None) -> int:
    """The depth that a list of channels implies, which `depth` must not contradict."""
    if depth not in (None, implied):
        raise ValueError(f"depth={depth} contradicts channels={channels}; use depth=null or a single number")
    return implied


def _doubled(channels: list[int] | int, count: int, max_channels: int) -> list[int]:
    """Channels of `count` scales: a list as given, or a number doubled at every further scale."""
    return channels if isinstance(channels, list) else [min(channels * 2**i, max_channels) for i in range(count)]


def _covers(size: Size, other: Size) -> bool:
    return size[0] >= other[0] and size[1] >= other[1]


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
