"""Decodes image files of any kind to uint8 pixels of one shape."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from vae_train.util.text import first_line

Fit = Literal["crop", "pad", "stretch"]
Resample = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]
Background = Literal["black", "white"]

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")

TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
"""Names in `Image.Transpose` of what undoes EXIF's orientations from 2 on; images with 1 are upright."""


class BadImage(Exception):
    """A file that is not an image, or not a usable one; the text says why.

    Args:
        why: what is wrong with it.
        transient: whether reading may succeed the next time, since the disk failed and not the content.
    """

    def __init__(self, why: str, transient: bool = False) -> None:
        super().__init__(why)
        self.transient = transient


@dataclass(frozen=True)
class Decoding:
    """How files become pixels; part of the key of a cache.

    Args:
        size: (H, W) of the result.
        channels: 1 for grey, 3 for RGB.
        fit: "crop" scales the image until it covers `size` and cuts its middle out, "pad" scales it until it fits and
            fills the rest with `background`, "stretch" changes its proportions.
        crop: (height, width) in the file's own pixels that are cut out of its middle first; None for all of it.
        resample: how it is scaled; all but "nearest" average over the area of a pixel.
        background: the colour behind transparent pixels and beside padded images.
        threshold: whether pixels are 1 from half the brightness on and 0 below, instead of 0 to 255.
    """

    size: tuple[int, int]
    channels: int
    fit: Fit
    crop: tuple[int, int] | None
    resample: Resample
    background: Background
    threshold: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *self.size)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences libraries' warnings, for instance of damaged metadata and large images, for the whole process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(path: Path | str, how: Decoding) -> np.ndarray:
    """Decodes the first frame of an image file as uint8 `(C, H, W)`, upright as its EXIF orientation says.

    Raises:
        BadImage: it cannot be read or decoded.
    """
    try:
        with Image.open(path) as file:
            pixels = np.asarray(_fitted(_flat(_upright(file, how), how), how))
    except BadImage:
        raise
    except Exception as error:  # on damaged files the decoders raise anything
        transient = isinstance(error, OSError) and error.errno is not None
        raise BadImage(_why(error), transient) from error
    if how.threshold:
        pixels = (pixels >= 128).astype(np.uint8)
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def header(path: Path | str) -> tuple[tuple[int, int], bool]:
    """Reads (H, W) of an image when it is upright, and whether it is grey, without decoding pixels.

    Raises:
        BadImage: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = _orientation(file) in (5, 6, 7, 8)
            return ((width, height) if turned else (height, width)), _is_grey(file)
    except Exception as error:  # as in `decode`
        raise BadImage(_why(error)) from error


def _is_grey(file: Image.Image) -> bool:
    if file.mode in ("P", "PA"):
        palette = file.getpalette("RGB") or []
        return palette[0::3] == palette[1::3] == palette[2::3]
    return file.mode in GREY_MODES


def _orientation(file: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 if it is missing or damaged."""
    try:
        return int(file.getexif().get(0x0112, 1))
    except Exception:  # the image itself may be intact
        return 1


def _upright(file: Image.Image, how: Decoding) -> Image.Image:
    """Applies the EXIF orientation, and decodes the image as small as its format allows."""
    if how.crop is None:  # a crop counts the file's own pixels
        side = max(how.size)
        file.draft("L" if how.channels == 1 else "RGB", (side, side))
    file.load()
    orientation = _orientation(file)
    return file.transpose(Image.Transpose[TURNS[orientation - 2]]) if 2 <= orientation <= 8 else file


def _flat(image: Image.Image, how: Decoding) -> Image.Image:
    """Converts to grey or RGB with 8 bits, without transparency."""
    mode = "L" if how.channels == 1 else "RGB"
    if image.mode == "F":
        raise BadImage("has floating-point pixels, whose range is unknown; use data=arrays")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage("has 32-bit pixels, whose range is unknown; use data=arrays")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert(mode)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, how.background)
        image = Image.alpha_composite(behind, image)
    return image.convert("RGB").convert(mode) if image.mode in ("CMYK", "LAB") else image.convert(mode)


def _fitted(image: Image.Image, how: Decoding) -> Image.Image:
    """Crops and scales to the size of the result."""
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
        return ImageOps.fit(image, (width, height), method)
    scale = min(width / image.width, height / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    framed = Image.new(image.mode, (width, height), how.background)
    framed.paste(image.resize(inner, method), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return framed


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "is not an image" if type(error).__name__ == "UnidentifiedImageError" else first_line(error)
