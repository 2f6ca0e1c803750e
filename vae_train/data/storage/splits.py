"""Validation and test images, cut from a data set that names none."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


def shuffled(count: int, seed: int) -> np.ndarray:
    """A permutation of `count` images that is the same on every machine and in every version of NumPy."""
    return np.random.RandomState(seed % 2**32).permutation(count)


def cut(rows: Mapping[str, np.ndarray], shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """The rows of every split, in ascending order.

    Args:
        rows: numbers of the images of "train", "valid" and "test"; of the last two those that are named, or none.
        shares: share of the training images that each other split gets where none are named for it.
        seed: decides which.
    """
    count = len(rows["train"])
    pool, found = rows["train"][shuffled(count, seed)], dict(rows)
    for name, share in shares.items():
        if not len(rows[name]):
            taken = min(math.floor(share * count + 0.5), len(pool) - 1)
            found[name], pool = np.sort(pool[:taken]), pool[taken:]
    found["train"] = np.sort(pool)
    return found
