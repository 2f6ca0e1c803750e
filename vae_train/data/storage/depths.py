"""Brings decoded images of several depths to one range, which is what all pixels say."""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import numpy as np

from vae_train.data.storage.levels import Integers, depth
from vae_train.data.storage.stored import CHUNK_BYTES


class Depths(NamedTuple):
    """What the pixels of the images of a folder are."""

    bits: int
    """1 if all files have one bit, 8 for bytes; else bits that hold all pixels of the files with 16 bits."""
    high: int
    """The largest pixel of the files with 16 bits."""
    scaled: int
    """Number of images with 8 bits whose pixels were scaled to more."""
    pixels: Integers
    """All pixels as they are stored, without those of bad files."""


def united(pixels: np.ndarray, bits: np.ndarray, high: int) -> Depths:
    """Scales images of 8 bits to the range of others, and clips what lies beyond it; returns what is stored then.

    Args:
        pixels: uint8 or uint16 `(N, C, H, W)`, changed in place. White beside padded images is 65535 among 16 bits.
        bits: `(N,)` of each image's file: 1, 8 or 16, and 0 for bad files, of which there are others.
        high: the largest pixel of the files with 16 bits.
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
