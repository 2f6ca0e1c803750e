"""Decodes image files of many formats to integer pixels with the same shape."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from vae_train.data.storage.image_files import TooLarge, check_size, is_deep_colour, opened
from vae_train.data.storage.levels import depth
from vae_train.data.storage.library_messages import recorded
from vae_train.util.errors import raise_out_of_memory
from vae_train.util.text import first_line

Fit = Literal["crop", "pad", "stretch"]
Resample = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]
Background = Literal["black", "white"]

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")

TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
"""Names in `Image.Transpose` that undo the EXIF orientations 2 to 8; orientation 1 is upright."""


SAMPLE = 64
"""Side of the thumbnail from which brightness is measured."""

MIN_CUT = 0.01
"""Fraction of an image above which cropping is reported."""

MAX_16_BITS = 2**16 - 1

BEHIND: Mapping[Background, float] = {"black": 0.0, "white": float(MAX_16_BITS)}
"""Backgrounds among 16 bits, before they are clipped to the bits that a folder needs."""

Dropped = Literal["frames", "colour", "depth", "transparency", "edges", "library"]
"""What is dropped where a file becomes pixels, and warnings: `vae_train.data.storage.dropped` has the sentences."""


class Header(NamedTuple):
    """Facts about a frame that are known without decoding it."""

    size: tuple[int, int]
    """(H, W) of the upright image."""
    grey: bool


class Decoded(NamedTuple):
    """A decoded frame."""

    pixels: np.ndarray
    """`(C, H, W)`: uint8 from 0 to 255, or uint16 for a 16-bit grey file."""
    bits: int
    """Bits per pixel of the file, 1, 8 or 16; of 16-bit colours only the upper 8 bits are used."""
    high: int
    """The largest pixel of a 16-bit file; 0 for others."""
    dropped: dict[Dropped, float | str]
    """What was dropped: the number of other frames, the mean brightness (0 to 255) of the visible part of transparent
    images, the fraction that was cropped, and the first message of the library."""


class BadImage(Exception):
    """Raised for a file that is not a usable image.

    Args:
        why: the reason.
        transient: whether reading may succeed the next time, because the disk failed.
    """

    def __init__(self, why: str, transient: bool = False) -> None:
        super().__init__(why)
        self.transient = transient


@dataclass(frozen=True)
class Decoding:
    """How files are decoded to pixels; part of the key of a cache.

    Args:
        size: (H, W) of the result.
        channels: 1 for grey, 3 for RGB.
        fit: "crop" scales the image to cover `size` and crops the centre, "pad" scales it to fit into `size` and
            fills the rest with `background`, "stretch" ignores the aspect ratio.
        crop: (height, width) of a centre crop before scaling, in pixels of the file; None for the whole image.
        resample: interpolation; all but "nearest" are antialiased.
        background: the colour behind transparent pixels and beside padded images.
        every_frame: whether every frame of a file is an image, instead of only the first.
    """

    size: tuple[int, int]
    channels: int
    fit: Fit
    crop: tuple[int, int] | None
    resample: Resample
    background: Background
    every_frame: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *self.size)


def decode(path: Path | str, how: Decoding) -> Decoded:
    """Decodes the first frame of an image file, upright according to its EXIF orientation.

    Raises:
        BadImage: it cannot be read or decoded.
    """
    (result,) = decode_frames(path, how, [0])
    if isinstance(result, BadImage):
        raise result
    return result


def decode_frames(path: Path | str, how: Decoding, numbers: Sequence[int]) -> list[Decoded | BadImage]:
    """Decodes some frames or pages of an image file; returns each, or why it cannot be decoded."""
    results: list[Decoded | BadImage] = []
    with recorded() as messages:
        try:
            with _explained(), opened(path) as file:
                for number in numbers:
                    try:
                        with _explained():
                            results.append(decode_image(file, how, number))
                    except BadImage as error:
                        results.append(error)
        except BadImage as error:
            return [error] * len(numbers)
    for i, result in enumerate(results if messages else ()):
        if isinstance(result, Decoded):
            result.dropped["library"] = messages[0]
        elif str(result).startswith("decoder error"):
            results[i] = BadImage(messages[0], result.transient)
    return results


def headers(path: Path | str, every_frame: bool = False) -> list[Header]:
    """Reads the header of an image file's first frame, or of every frame.

    Raises:
        BadImage: it cannot be read.
    """
    with _explained(), recorded(), opened(path) as file:
        frames = ImageSequence.Iterator(file) if every_frame else [file]
        return [_header(frame) for frame in frames]


def animation_rate(path: Path | str) -> Fraction | None:
    """Frames per second of an animation, on average; None for pages and single images.

    Raises:
        BadImage: it cannot be read.
    """
    with _explained(), recorded(), opened(path) as file:
        times = [float(frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(file)]
        return Fraction(1000 * len(times) / sum(times)).limit_denominator(1000) if sum(times) else None


@contextmanager
def _explained() -> Iterator[None]:
    """Converts any error of Pillow to a `BadImage`, since its decoders raise errors of any kind for damaged files."""
    try:
        yield
    except BadImage:
        raise
    except TooLarge as error:
        raise BadImage(str(error), error.transient) from error
    except Exception as error:
        raise_out_of_memory(error)
        raise BadImage(_why(error), isinstance(error, OSError) and error.errno is not None) from error


def decode_image(file: Image.Image, how: Decoding, number: int = 0) -> Decoded:
    """Decodes a frame of an open image file, or converts an image in memory.

    Raises:
        Exception: any error of Pillow's decoders.
    """
    if number:
        file.seek(number)
    dropped: dict[Dropped, float | str] = {}
    if how.channels == 1 and not _is_grey(file):
        dropped["colour"] = 1.0
    if is_deep_colour(file):
        dropped["depth"] = 1.0
    image = _upright(file, how)
    bits, high = (1 if image.mode == "1" else 8), 0
    if image.mode.startswith("I"):
        bits, (image, high) = 16, _with_16_bits(image, how, dropped)
    pixels = np.asarray(_fitted(image if bits == 16 else _flat(image, how, dropped), how, dropped))
    if bits == 16:  # equal channels if other images have colours
        grey = np.rint(pixels).clip(0, MAX_16_BITS).astype(np.uint16)
        pixels = np.repeat(grey[..., None], how.channels, 2)
    if not how.every_frame and (further := _num_frames(file) - 1) > 0:
        dropped["frames"] = float(further)
    return Decoded(np.atleast_3d(pixels).transpose(2, 0, 1), bits, high, dropped)


def _num_frames(file: Image.Image) -> int:
    try:
        return getattr(file, "n_frames", 1)
    except Exception:  # other frames are damaged
        return 1


def _header(file: Image.Image) -> Header:
    width, height = file.size
    turned = _orientation(file) in (5, 6, 7, 8)
    return Header((width, height) if turned else (height, width), _is_grey(file))


def _is_grey(file: Image.Image) -> bool:
    if file.mode in ("P", "PA"):
        palette = file.getpalette("RGB") or []
        return palette[0::3] == palette[1::3] == palette[2::3]
    if file.format == "GIF" and file.tell():  # frames after the first have no palette
        return not np.ptp(np.asarray(file.convert("RGB")), axis=2).any()
    return file.mode in GREY_MODES


def _orientation(file: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 if it is missing or damaged."""
    try:
        return int(file.getexif().get(0x0112, 1))
    except Exception:  # the image itself may be intact
        return 1


def _upright(file: Image.Image, how: Decoding) -> Image.Image:
    """Applies the EXIF orientation, and decodes at the smallest sufficient size of the format."""
    whole = file.size
    if how.crop is None:  # a crop refers to the file's own pixels
        side = max(how.size)
        file.draft("L" if how.channels == 1 else "RGB", (side, side))
    check_size(file, whole)
    file.load()
    orientation = _orientation(file)
    return file.transpose(Image.Transpose[TURNS[orientation - 2]]) if 2 <= orientation <= 8 else file


def _with_16_bits(image: Image.Image, how: Decoding, dropped: dict[Dropped, float | str]) -> tuple[Image.Image, int]:
    """Integers from 0 to 65535 as floating-point numbers, which Pillow can scale, and the largest visible one."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > MAX_16_BITS:
        raise BadImage("has 32-bit pixels, whose range is unknown; use data=arrays")
    is_visible = values != image.info.get("transparency")
    high = int(values.max(initial=0, where=is_visible))
    if not is_visible.all():
        bits = depth(high)
        assert bits is not None
        dropped["transparency"] = 255 * float(values[is_visible].mean()) / (2**bits - 1) if is_visible.any() else 128.0
        values[~is_visible] = BEHIND[how.background]
    return Image.fromarray(values.astype(np.float32)), high


def _flat(image: Image.Image, how: Decoding, dropped: dict[Dropped, float | str]) -> Image.Image:
    """Converts to 8-bit grey or RGB, without transparency."""
    mode = "L" if how.channels == 1 else "RGB"
    if image.mode == "F":
        raise BadImage("has floating-point pixels, whose range is unknown; use data=arrays")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = (image.convert("L") if image.mode == "1" else image).convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            dropped["transparency"] = _brightness(image)
        behind = Image.new("RGBA", image.size, how.background)
        image = Image.alpha_composite(behind, image)
    return image.convert("RGB").convert(mode) if image.mode in ("CMYK", "LAB") else image.convert(mode)


def _brightness(image: Image.Image) -> float:
    """Mean brightness of the visible pixels of an RGBA image, 0 to 255; 128 if all pixels are transparent."""
    image = image.copy()
    image.thumbnail((SAMPLE, SAMPLE), Image.Resampling.BOX)
    grey, alpha = (np.asarray(part, np.float64) for part in (image.convert("L"), image.getchannel("A")))
    return float((grey * alpha).sum() / alpha.sum()) if alpha.any() else 128.0


def _fitted(image: Image.Image, how: Decoding, dropped: dict[Dropped, float | str]) -> Image.Image:
    """Crops and scales an image to the size of the result."""
    method, (height, width) = getattr(Image.Resampling, how.resample.upper()), how.size
    if how.crop is not None:
        high, wide = how.crop
        if high > image.height or wide > image.width:
            raise BadImage(f"has {image.height}x{image.width} pixels, less than the crop of {high}x{wide}")
        left, top = round((image.width - wide) / 2), round((image.height - high) / 2)  # as torchvision's CenterCrop
        image = image.crop((left, top, left + wide, top + high))
    if image.size == (width, height):
        return image
    if how.fit == "stretch":
        return image.resize((width, height), method)
    if how.fit == "crop":
        scale = max(width / image.width, height / image.height)
        cut_off = 1 - (width / image.width) * (height / image.height) / scale**2
        if cut_off >= MIN_CUT:
            dropped["edges"] = cut_off
        return ImageOps.fit(image, (width, height), method)
    scale = min(width / image.width, height / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    beside: str | float = how.background
    if image.mode == "F":
        beside = BEHIND[how.background]
    framed = Image.new(image.mode, (width, height), beside)
    framed.paste(image.resize(inner, method), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return framed


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "is not an image" if type(error).__name__ == "UnidentifiedImageError" else first_line(error)
