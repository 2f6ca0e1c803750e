"""Images of one split as they are stored, and the way from there to a batch."""

from __future__ import annotations

import copy
import hashlib
import mmap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Images, Raw, Shape, evenly_spaced
from vae_train.rng import Rng

if TYPE_CHECKING:
    from vae_train.data.transforms.augmentation import Augmentation
    from vae_train.data.transforms.corruption import Corruption
    from vae_train.data.transforms.preprocessing import Preprocessing

Place = Literal["memory", "file", "nothing"]
Binarize = Literal["none", "dynamic", "threshold"]

SAMPLED = 1024
"""Images that stand for all, where all of them would be too many to look at."""

CHUNK = 2**25
"""Bytes at a time where all pixels are gone through."""


class Store(Protocol):
    """Pixels by number."""

    shape: Shape
    """(C, H, W) of one image."""
    device: torch.device
    """Where `take` leaves them."""
    itemsize: int
    """Bytes of a pixel."""
    lies_in: Place
    """Whether the process holds them, a file that is mapped into memory does, or they are computed when asked for."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def take(self, index: Tensor) -> Tensor:
        """The images with the numbers `index`, with shape `(B, C, H, W)`, as they are stored."""
        ...

    def on(self, device: torch.device) -> Store:
        """The store that feeds `device`: another one where pixels are computed there, else itself."""
        ...


class Resident(Store):
    """All pixels in one tensor.

    Args:
        pixels: tensor with shape `(N, C, H, W)`.
    """

    lies_in: Place = "memory"

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.shape, self.device = pixels, tuple(pixels.shape[1:]), pixels.device
        self.itemsize = pixels.element_size()

    def __len__(self) -> int:
        return len(self.pixels)

    @override
    def take(self, index: Tensor) -> Tensor:
        return self.pixels.index_select(0, index.to(self.device))

    @override
    def on(self, device: torch.device) -> Store:
        return self


class Hosted(Store):
    """Pixels in an array of the host, which may be a file that is mapped into memory.

    Args:
        array: `(N, …)`, in any layout.
        rows: numbers of the images within `array`; None for all.
        layout: how an image's dimensions lie in `array`, see `LAYOUTS`.
        mapped: whether `array` lies in a file; None for what NumPy says.
    """

    device = torch.device("cpu")

    def __init__(
        self, array: np.ndarray, rows: np.ndarray | None = None, layout: str = "NCHW", mapped: bool | None = None
    ) -> None:
        self.array, self.rows, self.layout = array, rows, layout
        self.shape = LAYOUTS[layout].shape(array.shape[1:])
        in_file = isinstance(array, np.memmap) if mapped is None else mapped
        self.lies_in: Place = "file" if in_file else "memory"
        self.itemsize = 1 if array.dtype in (np.uint8, np.bool_) else 4

    def __len__(self) -> int:
        return len(self.array if self.rows is None else self.rows)

    def take(self, index: Tensor) -> Tensor:
        """See `Store.take`: uint8, or whatever else it was as float32."""
        numbers = index.cpu().numpy()
        return self._tensor(self.array[numbers if self.rows is None else self.rows[numbers]])

    @override
    def on(self, device: torch.device) -> Store:
        expect_jumps(self.array)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Where processes are not forked, a worker maps the file again instead of being sent what is in it."""
        array = self.array
        if isinstance(array, np.memmap) and array.base is getattr(array, "_mmap", None):
            return self.__dict__ | {"array": _Mapped(array)}
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if isinstance(self.array, _Mapped):
            self.array = self.array.open()
            expect_jumps(self.array)

    def whole(self) -> Tensor:
        """All images; shares the array's memory where it can."""
        if self.lies_in == "file":
            return self._tensor(np.array(self.array if self.rows is None else self.array[self.rows]))
        return self._tensor(self.array if self.rows is None else self.array[self.rows])

    def _tensor(self, found: np.ndarray) -> Tensor:
        if found.dtype == np.bool_:
            found = found.view(np.uint8)
        elif found.dtype not in (np.uint8, np.float32):
            found = found.astype(np.float32)
        images = LAYOUTS[self.layout].arrange(found)
        return torch.from_numpy(np.require(images, requirements=["C", "W"]))


class _Mapped:
    """How a file is mapped."""

    def __init__(self, array: np.memmap) -> None:
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        self.arguments = (str(array.filename), array.dtype, "r", array.offset, array.shape, order)

    def open(self) -> np.memmap:
        """The same file, mapped anew."""
        return np.memmap(*self.arguments)  # type: ignore[call-overload, no-any-return]


def expect_jumps(array: np.ndarray) -> None:
    """Keeps the system from reading megabytes around every image that is asked for, where `array` is mapped."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)


class Layout(Protocol):
    """How the dimensions of images lie in an array."""

    def shape(self, stored: Shape) -> Shape:
        """(C, H, W) of an image that is stored with the shape `stored`."""
        ...

    def arrange(self, images: np.ndarray) -> np.ndarray:
        """`(B, *stored)` as `(B, C, H, W)`."""
        ...


class _Permuted(Layout):
    """A layout whose axes are put into the order C, H, W; axes that it does not have are 1.

    Args:
        axes: for C, H and W the stored axis (0 is the first after the image's number), or None.
    """

    def __init__(self, *axes: int | None) -> None:
        self.axes = axes

    @override
    def shape(self, stored: Shape) -> Shape:
        return tuple(1 if axis is None else int(stored[axis]) for axis in self.axes)

    @override
    def arrange(self, images: np.ndarray) -> np.ndarray:
        kept = [axis + 1 for axis in self.axes if axis is not None]
        return images.transpose(0, *kept).reshape(len(images), *self.shape(images.shape[1:]))


LAYOUTS: dict[str, Layout] = {
    "NCHW": _Permuted(0, 1, 2),
    "NHWC": _Permuted(2, 0, 1),
    "NHW": _Permuted(None, 0, 1),
    "NCT": _Permuted(0, None, 1),  # signals: C channels of T samples
    "ND": _Permuted(None, None, 0),  # vectors
}
"""The layouts by name: N numbers the images."""


class ArrayImages(Images):
    """Images of one split.

    Args:
        pixels: a uint8 tensor with shape `(N, C, H, W)` and values below `levels`, a float32 one, or a `Store`.
        levels: number of values that a stored pixel can take; None for continuous ones.
        labels: int64 tensor with shape `(N, F)`, or None.
        stochastic: whether each fetch draws every pixel as 0 or 1 with probability x, from the `draw` that it is given.
        bounds: the stored values that become 0 and 1; None for 0 and levels - 1.
    """

    def __init__(
        self,
        pixels: Tensor | Store,
        levels: int | None,
        labels: Tensor | None = None,
        stochastic: bool = False,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        self.store: Any = Resident(pixels) if isinstance(pixels, Tensor) else pixels
        self.levels, self.labels, self.stochastic = levels, labels, stochastic
        assert bounds is not None or levels is not None
        self.bounds = bounds or (0.0, float((levels or 2) - 1))
        self.device = self.store.device
        self.workers, self.prefetch = 0, 2
        self.augmentation: Augmentation | None = None
        self.corruption: Corruption | None = None
        self.preprocessing: Preprocessing | None = None

    def __len__(self) -> int:
        return len(self.store)

    @property
    def shape(self) -> Shape:
        """(C, H, W) of one image."""
        return tuple(self.store.shape)

    @property
    @override
    def resident(self) -> bool:
        return self.store.device == self.device and not isinstance(self.store, Hosted)

    @property
    def nbytes(self) -> int:
        """What all pixels take up."""
        return len(self) * int(torch.Size(self.shape).numel()) * self.store.itemsize

    @property
    def pixels(self) -> Tensor:
        """All stored pixels, with shape `(N, C, H, W)`."""
        if isinstance(self.store, Resident):
            return self.store.pixels
        return torch.cat([part.pixels for part in self.parts()])

    def parts(self) -> Iterator[Raw]:
        """All stored images in order, some at a time."""
        count = max(1, CHUNK * len(self) // max(self.nbytes, 1))
        for start in range(0, len(self), count):
            yield self.gather(torch.arange(start, min(start + count, len(self)), device=self.device))

    def to(self, device: torch.device) -> ArrayImages:
        """The same images with all pixels on `device`."""
        if isinstance(self.store, Hosted):
            pixels = self.store.whole()
        else:
            store = self.store.on(device)
            pixels = self.equipped(store=store, device=store.device).pixels
        return self.equipped(store=Resident(pixels.to(device)), device=device, labels=_moved(self.labels, device))

    def fed_to(self, device: torch.device, workers: int, prefetch: int) -> ArrayImages:
        """The same images, whose pixels stay where they are until a batch of them is sent to `device`.

        Args:
            device: the training device.
            workers: processes that read ahead.
            prefetch: batches that each of them reads ahead.
        """
        store = self.store.on(device)
        labels = _moved(self.labels, store.device)  # they are sent with the pixels
        return self.equipped(store=store, device=device, labels=labels, workers=workers, prefetch=prefetch)

    def equipped(self, **fields: Any) -> ArrayImages:
        """A copy with some attributes changed; the pixels are shared."""
        other = copy.copy(self)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    @override
    def gather(self, index: Tensor) -> Raw:
        labels = None if self.labels is None else self.labels.index_select(0, index.to(self.labels.device))
        return self._sent(Raw(self.store.take(index), labels))

    @override
    def ahead(self, indices: Iterator[Tensor]) -> Iterator[Raw]:
        from vae_train.data.storage.prefetch import read_ahead

        pinned = self.device.type == "cuda"
        return map(self._sent, read_ahead(self.store, self.labels, indices, self.workers, self.prefetch, pinned))

    def finish(self, raw: Raw, rng: Rng | None = None) -> Batch:
        """See `Images.finish`. Without a `draw` a stochastic split gives its grey values.

        What is stored is mapped to [0, 1], augmented, drawn as bits, preprocessed, corrupted: in this order.
        """
        x = self._unit(raw.pixels)
        if self.augmentation is not None and rng is not None:
            x = self._on_grid(self.augmentation(x, rng))
        if self.stochastic and rng is not None:
            x = (rng.uniform((1, *x.shape))[0] < x).float()
        batch = Batch(x, raw.y)
        hidden = None
        if self.corruption is not None and rng is not None:
            hidden = self.corruption.hidden(x, rng)
            batch = batch._replace(mask=self.corruption.scored_mask(hidden))
        if self.preprocessing is not None:
            batch = self.preprocessing(batch, 2 if self.stochastic else self.levels, rng)
        if self.corruption is not None and rng is not None:
            batch = batch._replace(encoder_input=self.corruption.seen(batch.x, hidden, rng))
        return self._measured(batch)

    @override
    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        return self.finish(self.gather(index), rng)

    def update(self, digest: Any) -> None:
        """Feeds what identifies these images to a `hashlib` object: all pixels, or evenly spread images where all of
        them would have to be read from a large file or computed.

        Args:
            digest: is fed.
        """
        if self.store.lies_in == "memory" or (self.store.lies_in == "file" and self.nbytes <= 2**28):
            for part in self.parts():
                digest.update(part.pixels.cpu().numpy().tobytes())
            return
        digest.update(repr((len(self), self.shape)).encode())
        for index in evenly_spaced(len(self), SAMPLED).split(64):
            digest.update(hashlib.sha256(self.store.take(index).numpy().tobytes()).digest())

    def _sent(self, raw: Raw) -> Raw:
        """Images on the training device; the copy of pinned ones is not waited for."""
        if raw.pixels.device == self.device:
            return raw
        pixels, y = (t if t is None else t.to(self.device, non_blocking=t.is_pinned()) for t in raw)
        assert pixels is not None
        return Raw(pixels, y)

    def _unit(self, pixels: Tensor) -> Tensor:
        """Stored values on [0, 1]; float32 by type promotion, in one pass."""
        low, high = self.bounds
        if low == 0.0:
            return pixels if high == 1.0 and pixels.is_floating_point() else pixels.mul(1 / high)
        return (pixels - low).mul_(1 / (high - low))

    def _on_grid(self, x: Tensor) -> Tensor:
        """An augmented image's values are rounded to the levels, which the likelihood scores."""
        if self.levels is None or self.stochastic:
            return x
        return x.mul(self.levels - 1).round_().div_(self.levels - 1)

    def _measured(self, batch: Batch) -> Batch:
        """Continuous values keep the density of what was stored: x is an affine map of it."""
        low, high = self.bounds
        if self.levels is not None or self.stochastic or high - low == 1.0:
            return batch
        counted = batch.x[0].numel() if batch.mask is None else _counted(batch)
        # (On the device without a copy from the host, which would wait for it.)
        constant = torch.zeros_like(batch.x[:, 0, 0, 0]).sub(counted, alpha=float(np.log(high - low)))
        return batch._replace(log_det=constant if batch.log_det is None else batch.log_det + constant)


def _counted(batch: Batch) -> Tensor:
    """Observed values of every image, with shape `(B,)`."""
    assert batch.mask is not None
    return batch.mask.expand_as(batch.x).flatten(1).sum(1)


def _moved(labels: Tensor | None, device: torch.device) -> Tensor | None:
    return None if labels is None else labels.to(device)
