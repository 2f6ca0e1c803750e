"""The splits of a data set as its source reads them: pixels, labels, and what the pixels' values mean."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import Raw, Shape, Split, evenly_spaced
from vae_train.data.storage.stores import Store, TensorStore

MAX_HASHED_FILE_BYTES = 2**28
"""A larger file's checksum covers some of its images."""

NUM_SAMPLED = 1024
"""Evenly spaced images that stand for all, where reading all would take too long."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """The images of one split, as they are stored.

    Args:
        store: uint8 pixels below `levels`, or float32 ones.
        levels: number of values that a stored pixel can take; None for continuous ones.
        labels: int64 with shape `(N, F)`, or None.
        stochastic: whether a stored value x in [0, 1] is the probability of a binary pixel, drawn at every fetch.
        bounds: the stored values that become 0 and 1; None for 0 and levels - 1.
    """

    store: Store
    levels: int | None
    labels: Tensor | None = None
    stochastic: bool = False
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        assert self.bounds is not None or self.levels is not None

    def __len__(self) -> int:
        return len(self.store)

    @property
    def shape(self) -> Shape:
        """(C, H, W) of one image."""
        return tuple(self.store.shape)

    @property
    def pixels(self) -> Tensor:
        """All stored pixels, `(N, C, H, W)`."""
        return self.store.whole()

    @property
    def value_range(self) -> tuple[float, float]:
        """The stored values that become 0 and 1."""
        return self.bounds or (0.0, float((self.levels or 2) - 1))

    def take(self, index: Tensor) -> Raw:
        """The images with the numbers `index`, where the store leaves them."""
        labels = None if self.labels is None else self.labels.index_select(0, index.to(self.labels.device))
        return Raw(self.store.take(index), labels)

    def unit(self, pixels: Tensor) -> Tensor:
        """Maps stored values to [0, 1], as float32 in one pass."""
        low, high = self.value_range
        if low == 0.0:
            return pixels if high == 1.0 and pixels.is_floating_point() else pixels.mul(1 / high)
        return (pixels - low).mul_(1 / (high - low))

    def to(self, device: torch.device) -> StoredImages:
        """Copies all pixels and labels to `device`."""
        store = self.store.on(device) if self.store.location == "computed" else self.store
        return replace(self, store=TensorStore(store.whole().to(device)), labels=_moved(self.labels, device))

    def streamed_to(self, device: torch.device) -> StoredImages:
        """Leaves the pixels where they are, to be sent to `device` batch by batch."""
        store = self.store.on(device)
        return replace(self, store=store, labels=_moved(self.labels, store.device))  # sent with the pixels

    def update(self, digest: Any) -> None:
        """Feeds all pixels to a `hashlib` object, or evenly spaced images of a large file or of computed images."""
        store = self.store
        if store.location == "memory" or (store.location == "file" and store.nbytes <= MAX_HASHED_FILE_BYTES):
            for chunk in store.chunks():
                digest.update(chunk.cpu().numpy().tobytes())
            return
        digest.update(repr((len(self), self.shape)).encode())
        for index in evenly_spaced(len(self), NUM_SAMPLED).split(64):
            digest.update(hashlib.sha256(store.take(index).numpy().tobytes()).digest())


Splits = dict[Split, StoredImages | None]
"""Every split of a data set; None for one that it does not have."""


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


def _moved(labels: Tensor | None, device: torch.device) -> Tensor | None:
    return None if labels is None else labels.to(device)
