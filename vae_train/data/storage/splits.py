"""Validation and test images, cut from data without these splits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from vae_train.batch import Split


def shuffled(count: int, seed: int) -> np.ndarray:
    """A permutation of `count` images that is the same on every machine and in every version of NumPy."""
    return np.random.RandomState(seed % 2**32).permutation(count)


def cut(rows: Mapping[Split, np.ndarray], fractions: Mapping[Split, float], seed: int) -> dict[Split, np.ndarray]:
    """The rows of every split, in ascending order.

    Args:
        rows: numbers of the images of each split; validation and test may be empty.
        fractions: fraction of the training images that an empty split gets.
        seed: decides which images these are.
    """
    count = len(rows["train"])
    pool, splits = rows["train"][shuffled(count, seed)], dict(rows)
    for name, fraction in fractions.items():
        if not len(rows[name]):
            taken = min(math.floor(fraction * count + 0.5), len(pool) - 1)
            splits[name], pool = np.sort(pool[:taken]), pool[taken:]
    splits["train"] = np.sort(pool)
    return splits
