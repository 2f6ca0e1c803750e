"""The stored splits of a data set: pixels by index, labels, and the meaning of values."""

from __future__ import annotations

import hashlib
import math
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Layout, Raw, Shape, Split, Units, evenly_spaced
from vae_train.data.storage.layouts import image_shape, to_images

Location = Literal["memory", "file", "computed"]

CHUNK_BYTES = 2**25
"""Bytes of pixels per chunk when all are read."""

MAX_HASHED_FILE_BYTES = 2**28
"""Larger files have a checksum of some of their images only."""

NUM_SAMPLED = 1024
"""Number of evenly spaced images that represent all, if reading all would take too long."""


class Store(ABC):
    """The stored pixels of one split."""

    shape: Shape
    """(C, H, W) of one image."""
    device: torch.device
    """The device of the pixels that `take` returns."""
    itemsize: int
    """Bytes per pixel value."""
    location: Location
    """Whether pixels are in memory, in a mapped file, or computed on access."""
    units: Units | None = None
    """The units by which `take` scales the pixels; None if they are unchanged."""
    immediate = True
    """Whether `take` only uses `device` and never waits for host memory or a file."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def take(self, index: Tensor) -> Tensor:
        """The images with indices `index` `(B,)`, as uint8 or, for any other type, float32 `(B, C, H, W)`."""

    def on(self, device: torch.device) -> Store:
        """The store for training on `device`: a copy there if pixels are computed, else this store."""
        return self

    def whole(self) -> Tensor:
        """All images, `(N, C, H, W)`; may share memory with the store."""
        return torch.cat(list(self.chunks()))

    def chunks(self) -> Iterator[Tensor]:
        """Yields all images in order, in chunks."""
        count = max(1, CHUNK_BYTES * len(self) // max(self.nbytes, 1))
        for start in range(0, len(self), count):
            yield self.take(torch.arange(start, min(start + count, len(self)), device=self.device))

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return len(self) * int(torch.Size(self.shape).numel()) * self.itemsize


class TensorStore(Store):
    """All pixels in one tensor.

    Args:
        pixels: tensor with shape `(N, C, H, W)`.
    """

    location: Location = "memory"

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.shape, self.device = pixels, tuple(pixels.shape[1:]), pixels.device
        self.itemsize = pixels.element_size()

    @override
    def __len__(self) -> int:
        return len(self.pixels)

    @override
    def take(self, index: Tensor) -> Tensor:
        return self.pixels.index_select(0, index.to(self.device))

    @override
    def whole(self) -> Tensor:
        return self.pixels


class ArrayStore(Store):
    """Pixels in an array in host memory or in a memory-mapped file.

    Args:
        array: `(N, …)`, in any layout.
        rows: indices of the images within `array`; None for all.
        layout: the order of an image's dimensions in `array`.
        mapped: whether `array` is in a file; None to ask NumPy.
        units: see `Store.units`.
        in_bytes: whether the units convert pixels to integers from 0 to 255, which are stored as uint8.
        threshold: pixels become 1 at or above it, and 0 below; None for no threshold.
    """

    device = torch.device("cpu")
    immediate = False

    def __init__(
        self,
        array: np.ndarray,
        rows: np.ndarray | None = None,
        layout: Layout = "NCHW",
        mapped: bool | None = None,
        units: Units | None = None,
        in_bytes: bool = False,
        threshold: float | None = None,
    ) -> None:
        self.array, self.rows, self.layout, self.units = array, rows, layout, units
        self.in_bytes, self.threshold = in_bytes, threshold
        self.shape = image_shape(array.shape, layout)
        in_file = isinstance(array, np.memmap) if mapped is None else mapped
        self.location: Location = "file" if in_file else "memory"
        as_stored = array.dtype in (np.uint8, np.bool_) and units is None
        self.itemsize = 1 if as_stored or in_bytes or threshold is not None else 4

    @override
    def __len__(self) -> int:
        return len(self.array if self.rows is None else self.rows)

    @override
    def take(self, index: Tensor) -> Tensor:
        numbers = index.cpu().numpy()
        return self._tensor(self.array[numbers if self.rows is None else self.rows[numbers]])

    @override
    def on(self, device: torch.device) -> Store:
        expect_random_access(self.array)
        return self

    @override
    def whole(self) -> Tensor:
        if self.units is not None:
            return super().whole()  # in chunks, because of float64 intermediates
        array = self.array if self.rows is None else self.array[self.rows]
        return self._tensor(np.array(array) if self.location == "file" else array)

    def __getstate__(self) -> dict[str, Any]:
        """Replaces a mapped array by the arguments for mapping its file again, for workers that are not forked."""
        array = self.array
        if not (isinstance(array, np.memmap) and array.base is getattr(array, "_mmap", None)):
            return self.__dict__
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        return self.__dict__ | {"array": (str(array.filename), array.dtype, "r", array.offset, array.shape, order)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if isinstance(self.array, tuple):
            self.array = np.memmap(*self.array)
            expect_random_access(self.array)

    def _tensor(self, array: np.ndarray) -> Tensor:
        images = to_images(array, self.layout)
        if self.threshold is not None:
            images = (images >= self.threshold).view(np.uint8)
        elif self.units is not None:
            images = self.units.to_model(images)
            images = np.rint(images).astype(np.uint8) if self.in_bytes else images
        elif array.dtype == np.bool_:
            images = images.view(np.uint8)
        elif array.dtype not in (np.uint8, np.float32):
            images = images.astype(np.float32)
        return torch.from_numpy(np.require(images, requirements=["C", "W"]))


@dataclass(frozen=True, eq=False)
class StoredImages:
    """The stored images of one split.

    Args:
        store: uint8 pixels below `levels`, or float32 pixels; continuous ones are in the units of the model.
        levels: number of values that a stored pixel can take; None for continuous pixels.
        labels: int64 with shape `(N, F)`, or None.
        stochastic: whether a stored value x in [0, 1] is the probability of a binary pixel, sampled at every fetch.
    """

    store: Store
    levels: int | None
    labels: Tensor | None = None
    stochastic: bool = False

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

    def take(self, index: Tensor) -> Raw:
        """The images with indices `index`, on the device of the store."""
        labels = None if self.labels is None else self.labels.index_select(0, index.to(self.labels.device))
        return Raw(self.store.take(index), labels)

    def unit(self, pixels: Tensor) -> Tensor:
        """Maps levels to [0, 1] as float32; continuous values are unchanged."""
        if self.levels is None or (self.levels == 2 and pixels.is_floating_point()):
            return pixels
        return pixels.mul(1 / (self.levels - 1))

    def to(self, device: torch.device) -> StoredImages:
        """Copies all pixels and labels to `device`."""
        store = self.store.on(device) if self.store.location == "computed" else self.store
        return self._in(TensorStore(store.whole().to(device)))

    def streamed_to(self, device: torch.device) -> StoredImages:
        """Leaves the pixels in place, to be sent to `device` batch by batch."""
        return self._in(self.store.on(device))

    def _in(self, store: Store) -> StoredImages:
        """The same images with their pixels in `store`, and labels on its device."""
        return replace(self, store=store, labels=None if self.labels is None else self.labels.to(store.device))

    def update(self, digest: Any) -> None:
        """Adds all pixels to a `hashlib` object; only evenly spaced images of a large file or of computed images."""
        store = self.store
        if store.units is not None:
            digest.update(repr(store.units).encode())
        if store.location == "memory" or (store.location == "file" and store.nbytes <= MAX_HASHED_FILE_BYTES):
            for chunk in store.chunks():
                digest.update(chunk.cpu().numpy().tobytes())
            return
        digest.update(repr((len(self), self.shape)).encode())
        for index in evenly_spaced(len(self), NUM_SAMPLED).split(64):
            digest.update(hashlib.sha256(store.take(index).numpy().tobytes()).digest())


Splits = dict[Split, StoredImages]
"""The splits of a data set."""


def split_rows(
    array: np.ndarray,
    rows: Mapping[Split, np.ndarray],
    levels: int,
    labels: Tensor | None,
    *,
    layout: Layout = "NCHW",
    stochastic: bool = False,
    units: Units | None = None,
    threshold: float | None = None,
) -> Splits:
    """The images of an array by split; splits without rows are left out.

    Args:
        array: pixels, see `ArrayStore`.
        rows: indices of the images of each split.
        levels: see `StoredImages`.
        labels: labels of all images of the array.
        layout: see `ArrayStore`.
        stochastic: see `StoredImages`.
        units: maps pixels to 0 to `levels` - 1; None if they already are these integers.
        threshold: see `ArrayStore`.
    """
    in_bytes = units is not None and levels <= 256

    def images(own: np.ndarray) -> StoredImages:
        store = ArrayStore(array, own, layout, units=units, in_bytes=in_bytes, threshold=threshold)
        return StoredImages(store, levels, None if labels is None else labels[own], stochastic)

    return {name: images(own) for name, own in rows.items() if len(own)}


def shuffled(count: int, seed: int) -> np.ndarray:
    """A permutation of `count` images that is the same on every machine and in every version of NumPy."""
    return np.random.RandomState(seed % 2**32).permutation(count)


def cut(rows: Mapping[Split, np.ndarray], fractions: Mapping[Split, float], seed: int) -> dict[Split, np.ndarray]:
    """Splits off missing validation and test rows; returns the rows of every split in ascending order.

    Args:
        rows: indices of the images of each split; validation and test may be empty.
        fractions: fraction of the training images for an empty split.
        seed: seed of the random split.
    """
    count = len(rows["train"])
    pool, splits = rows["train"][shuffled(count, seed)], dict(rows)
    for name, fraction in fractions.items():
        if not len(rows[name]):
            taken = min(math.floor(fraction * count + 0.5), len(pool) - 1)
            splits[name], pool = np.sort(pool[:taken]), pool[taken:]
    splits["train"] = np.sort(pool)
    return splits


def expect_random_access(array: np.ndarray) -> None:
    """Prevents the system from reading ahead around every image, if `array` is mapped."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)
