"""Opens image files: what Pillow leaves to its caller, bounds of their size and the scale of a transparent value."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from vae_train.util.runtime import cores, memory_shortage

MAX_PIXELS = 178_956_970
"""Of an image in memory, as Pillow has it. JPEG files may have more: they are decoded at down to an eighth of it."""

JPEG_SCALE = 8

UNCHECKED_PIXELS = 2**24
"""An image with fewer pixels is decoded without a look at the free memory."""

BYTES_PER_PIXEL = {"plain": 8, "deep": 24}
"""Of decoding, copies included, at most; "deep" has 16 bits, which become 64, or transparency."""

PROGRESSIVE_BYTES = 6
"""Of every pixel of a progressive JPEG file, however small it is decoded: all its coefficients are in memory."""

FEW_BITS, MANY_BITS = re.compile(r"^L;([24])$"), re.compile(r";16[BLN]")
"""Pillow's names of pixels with less than 8 bits, and of colours with 16; BGR;16 has 16 for all three."""


class TooLarge(Exception):
    """An image that does not fit into memory.

    Args:
        why: what is too large.
        transient: whether more memory may be free the next time.
    """

    def __init__(self, why: str, transient: bool = False) -> None:
        super().__init__(why)
        self.transient = transient


@contextmanager
def opened(path: Path | str) -> Iterator[Image.Image]:
    """Opens an image file of any size that can be decoded; Pillow's own bound does not know of smaller decoding.

    Raises:
        TooLarge: no decoding of it is small enough.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as file:
            _check_pixels(file, JPEG_SCALE**2 if _is_jpeg(file) else 1)
            _scale_transparent_value(file)
            yield file
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_size(file: Image.Image, whole: tuple[int, int]) -> None:
    """Checks that an image fits into memory at the size at which it will be decoded.

    Args:
        file: the open file.
        whole: (W, H) of the file, of which a smaller decoding may have been chosen.

    Raises:
        TooLarge: it does not.
    """
    _check_pixels(file)
    pixels = file.width * file.height
    is_deep = file.mode.startswith("I") or file.mode.endswith(("A", "a")) or "transparency" in file.info
    needed = pixels * BYTES_PER_PIXEL["deep" if is_deep else "plain"]
    if "progressive" in file.info:
        needed += whole[0] * whole[1] * PROGRESSIVE_BYTES
    if needed <= UNCHECKED_PIXELS * BYTES_PER_PIXEL["plain"]:
        return
    if shortage := memory_shortage(needed, "to be decoded", processes=cores()):
        raise TooLarge(shortage, transient=True)


def is_deep_colour(file: Image.Image) -> bool:
    """Whether every colour of a pixel has 16 bits, of which Pillow takes the upper 8."""
    return not file.mode.startswith("I") and any(MANY_BITS.search(str(tile[3])) for tile in getattr(file, "tile", ()))


def _check_pixels(file: Image.Image, factor: int = 1) -> None:
    if file.width * file.height > MAX_PIXELS * factor:
        advice = "a smaller data.size decodes less of it" if _is_jpeg(file) and factor == 1 else "scale it down first"
        raise TooLarge(f"has {file.height:,} x {file.width:,} pixels, more than {MAX_PIXELS * factor:,}; {advice}")


def _is_jpeg(file: Image.Image) -> bool:
    return file.format in ("JPEG", "MPO")


def _scale_transparent_value(file: Image.Image) -> None:
    """Brings the transparent value of a PNG file, which has the bits of the file, to the 8 of Pillow's pixels."""
    value, tiles = file.info.get("transparency"), getattr(file, "tile", ())
    if isinstance(value, int) and tiles and (few := FEW_BITS.match(str(tiles[0][3]))):
        file.info["transparency"] = value * 255 // (2 ** int(few[1]) - 1)
    elif isinstance(value, tuple) and is_deep_colour(file):
        file.info["transparency"] = tuple(part >> 8 for part in value)
