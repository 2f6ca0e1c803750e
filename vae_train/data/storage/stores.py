"""Pixels by image number: in a tensor, in an array, or in a file that is mapped into memory."""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape

Location = Literal["memory", "file", "computed"]
LayoutName = Literal["NCHW", "NHWC", "NHW", "NCT", "ND"]
"""The order of an image's dimensions in an array; N numbers the images."""

CHUNK_BYTES = 2**25
"""Pixels that are read at a time where all are read."""


class Store(ABC):
    """Pixels of the images of one split, as they are stored."""

    shape: Shape
    """(C, H, W) of one image."""
    device: torch.device
    """Where `take` leaves the pixels."""
    itemsize: int
    """Bytes of a pixel."""
    location: Location
    """Whether the process holds the pixels, a mapped file does, or they are computed when they are taken."""
    immediate = True
    """Whether `take` only computes on `device` and never waits for host memory or a file."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def take(self, index: Tensor) -> Tensor:
        """The images with the numbers `index`, `(B,)` to `(B, C, H, W)`: uint8, or float32 for any other type."""

    def on(self, device: torch.device) -> Store:
        """The store to train with on `device`: a copy if the pixels are computed there, else the store itself."""
        return self

    def whole(self) -> Tensor:
        """All images, `(N, C, H, W)`; may share memory with the store."""
        return torch.cat(list(self.chunks()))

    def chunks(self) -> Iterator[Tensor]:
        """All images in order, some at a time."""
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


class Layout(NamedTuple):
    """For C, H and W the axis of a stored image; None for a dimension of size 1 that the array does not have."""

    channel: int | None
    height: int | None
    width: int | None

    def shape(self, stored: Shape) -> Shape:
        """(C, H, W) of an image that is stored with the shape `stored`."""
        return tuple(1 if axis is None else int(stored[axis]) for axis in self)

    def arrange(self, images: np.ndarray) -> np.ndarray:
        """Permutes `(B, *stored)` to `(B, C, H, W)`."""
        axes = [axis + 1 for axis in self if axis is not None]
        return images.transpose(0, *axes).reshape(len(images), *self.shape(images.shape[1:]))


LAYOUTS: dict[LayoutName, Layout] = {
    "NCHW": Layout(0, 1, 2),
    "NHWC": Layout(2, 0, 1),
    "NHW": Layout(None, 0, 1),
    "NCT": Layout(0, None, 1),  # signals: C channels of T samples
    "ND": Layout(None, None, 0),  # vectors
}


class ArrayStore(Store):
    """Pixels in an array in host memory, which may be a file that is mapped into memory.

    Args:
        array: `(N, …)`, in any layout.
        rows: numbers of the images within `array`; None for all.
        layout: the order of an image's dimensions in `array`.
        mapped: whether `array` lies in a file; None to ask NumPy.
    """

    device = torch.device("cpu")
    immediate = False

    def __init__(
        self,
        array: np.ndarray,
        rows: np.ndarray | None = None,
        layout: LayoutName = "NCHW",
        mapped: bool | None = None,
    ) -> None:
        self.array, self.rows, self.layout = array, rows, layout
        self.shape = LAYOUTS[layout].shape(array.shape[1:])
        in_file = isinstance(array, np.memmap) if mapped is None else mapped
        self.location: Location = "file" if in_file else "memory"
        self.itemsize = 1 if array.dtype in (np.uint8, np.bool_) else 4

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
        array = self.array if self.rows is None else self.array[self.rows]
        return self._tensor(np.array(array) if self.location == "file" else array)

    def __getstate__(self) -> dict[str, Any]:
        """Replaces a mapped array by the arguments that map its file: a worker that is not forked maps it again."""
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
        if array.dtype == np.bool_:
            array = array.view(np.uint8)
        elif array.dtype not in (np.uint8, np.float32):
            array = array.astype(np.float32)
        images = LAYOUTS[self.layout].arrange(array)
        return torch.from_numpy(np.require(images, requirements=["C", "W"]))


def expect_random_access(array: np.ndarray) -> None:
    """Keeps the system from reading megabytes around every image, if `array` is mapped."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)
