"""Scales decoded images with different bit depths to the same range."""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import numpy as np

from vae_train.data.storage.levels import Integers, depth
from vae_train.data.storage.stored import CHUNK_BYTES


class Depths(NamedTuple):
    """Facts about the pixels of a folder."""

    bits: int
    """1 if all files have one bit, 8 for bytes, or else the bits that suffice for all 16-bit files."""
    high: int
    """The largest pixel of 16-bit files."""
    scaled: int
    """Number of 8-bit images that were scaled to more bits."""
    pixels: Integers
    """All stored pixels, without those of bad files."""


def united(pixels: np.ndarray, bits: np.ndarray, high: int) -> Depths:
    """Scales 8-bit images to the range of others, and clips to this range; returns facts about the result.

    Args:
        pixels: uint8 or uint16 `(N, C, H, W)`, changed in place. White padding of 16-bit images is 65535.
        bits: `(N,)` bits of each image's file: 1, 8 or 16, and 0 for bad files; not all are 0.
        high: the largest pixel of 16-bit files.
    """
    good = np.flatnonzero(bits)
    deep, whole = pixels.dtype == np.uint16, depth(high)
    assert whole is not None
    top, found = 2**whole - 1, []
    for rows in np.array_split(good, min(len(good), math.ceil(pixels.nbytes / CHUNK_BYTES))):
        some = pixels[rows]
        if deep:
            few = bits[rows] < 16
            some[few] = np.rint(some[few] * (top / 255))
            pixels[rows] = some = np.minimum(some, top)
        found.append(Integers.of(some))
    scaled = int((bits[good] < 16).sum()) if whole > 8 else 0
    return Depths(whole if (bits[good] > 1).any() else 1, high, scaled, reduce(Integers.joined, found))
