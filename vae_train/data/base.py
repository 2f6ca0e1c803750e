"""What a data set is, and how batches are cut from it.

Images leave a data set as float32 in [0, 1] (`Batch`), whatever they were stored as. Batch i is a function of
(seed, i): the order is an endless stream of permutations, one per pass over the data.
"""

from __future__ import annotations

import hashlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from vae_train.draws import BlockDraw, Draw, generator
from vae_train.errors import UsageError

if TYPE_CHECKING:
    from vae_train.data.pipeline.augmentation import Augmentation
    from vae_train.data.pipeline.corruption import Corruption
    from vae_train.data.pipeline.loader import Loader
    from vae_train.data.pipeline.preprocessing import Preprocessing
    from vae_train.data.pipeline.stored import ArrayImages

Shape = tuple[int, ...]
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

log = logging.getLogger("vae_train")


class Batch(NamedTuple):
    """Some images and what is known of them."""

    x: Tensor
    """(B, C, H, W) float32, the target: in [0, 1], unless `Preprocessing` maps it elsewhere."""
    y: Tensor | None = None
    """(B, F) int64 labels or factors of variation."""
    seen: Tensor | None = None
    """(B, C, H, W) what the encoder sees, where it is not `x`."""
    observed: Tensor | None = None
    """(B, 1 or C, H, W) bool, the pixels that count; None where all do."""
    log_det: Tensor | None = None
    """(B,) log |det dx/dv| in nats for the values v that the data set means, where x is a map of them; None for 0."""
    log_bins: float | None = None
    """Nats per dimension that turn a density of v into the mass of a pixel's level; None where v has no levels."""

    def part(self, start: int, stop: int) -> Batch:
        """Images `start` to `stop` of the batch."""
        cut: dict[str, Any] = {k: part[start:stop] for k, part in self._asdict().items() if isinstance(part, Tensor)}
        return self._replace(**cut)


class Raw(NamedTuple):
    """Images as they are stored, before anything is computed from them."""

    pixels: Tensor
    """(B, C, H, W), uint8 levels or float32 values."""
    y: Tensor | None
    """(B, F) int64, or None."""


class Fetched(Protocol):
    """Images that can be asked for by number."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def fetch(self, index: Tensor, draw: Draw | None = None) -> Batch:
        """The images with the numbers `index`, an int64 tensor with shape `(B,)`."""
        ...


class Images(Fetched, Protocol):
    """One split of a data set."""

    @property
    def resident(self) -> bool:
        """Whether `gather` is an operation on the training device, which waits for nothing."""
        ...

    def gather(self, index: Tensor) -> Raw:
        """The stored images with the numbers `index`, an int64 tensor with shape `(B,)`; on the training device."""
        ...

    def ahead(self, indices: Iterator[Tensor]) -> Iterator[Raw]:
        """`gather` of one index after the other, read before they are asked for."""
        ...

    def finish(self, raw: Raw, draw: Draw | None = None) -> Batch:
        """What a model is given: tensor operations on the training device. Nothing is random without a `draw`."""
        ...


class Factor(NamedTuple):
    """A column of `Batch.y`: a class, or a factor of variation."""

    name: str
    size: int
    """Its values are 0 to size - 1."""
    values: tuple[Any, ...] | None = None
    """What they stand for, where that is known: names of classes, angles, …"""


class Dataset(ABC):
    """Facts about a data set, and its splits.

    The facts are known without the data being there, or after `inspect`; `load` checks them. A subclass sets them in
    its constructor and implements `read`.
    """

    shape: Shape
    """(C, H, W) of one image."""
    levels: int | None
    """Number of values that a stored pixel can take: 2 for binary data, None for continuous data."""
    num_train: int
    """Number of training images."""
    classes: int | None
    """Number of classes that the first column of `Batch.y` names, or None where there are no labels."""
    factors: tuple[Factor, ...] = ()
    """The columns of `Batch.y`, where more is known of them than `classes`."""

    bounds: tuple[float, float] | None = None
    """The numbers that 0 and 1 stand for, where pixels are no levels."""

    def __init__(self) -> None:
        self.checksum = ""
        self.storage = ""
        """Where the pixels lie, in words, once they are loaded."""
        self.bad_files: list[tuple[str, str]] = []
        """Files that were left out, each with the reason."""
        self.augmentation: Augmentation | None = None
        self.corruption: Corruption | None = None
        self.preprocessing: Preprocessing | None = None
        self.loader: Loader | None = None
        self._read: dict[str, ArrayImages | None] | None = None
        self._placed: dict[str, ArrayImages | None] = {}
        self._place: Any = None

    @abstractmethod
    def read(self) -> dict[str, ArrayImages | None]:
        """Reads or opens all splits; None for a split that the data set does not have.

        Raises:
            UsageError: the data is not there or cannot be read; says what to do.
        """

    def inspect(self) -> Dataset:
        """Fills in the facts that only the data knows, without reading pixels; returns itself.

        Raises:
            UsageError: the data is not there or cannot be what was asked for.
        """
        return self

    def inferred(self) -> dict[str, Any]:
        """Settings that were left open and what `inspect` and `load` found for them, for the run's config.yaml."""
        return {}

    def equip(
        self,
        augmentation: Augmentation | None = None,
        corruption: Corruption | None = None,
        preprocessing: Preprocessing | None = None,
        loader: Loader | None = None,
    ) -> Dataset:
        """Says what happens to the pixels on their way to a model, and where they are kept; returns itself."""
        self.augmentation, self.corruption, self.preprocessing = augmentation, corruption, preprocessing
        self.loader = loader
        return self

    @property
    def scored_levels(self) -> int | None:
        """The levels that a likelihood has to do with: None once `Preprocessing` has made them continuous."""
        return None if self.preprocessing is not None and self.preprocessing.continuous else self.levels

    def load(self, device: torch.device | str = "cpu") -> Dataset:
        """Reads the data, checks it against the facts and puts it where it is used on `device`; returns itself."""
        from vae_train.data.pipeline.loader import Loader

        if self._read is None:
            found = self.read()
            self._verify(found)
            self._read = found
        loader = self.loader or Loader.default()
        device = torch.empty(0, device=device).device  # "cuda" is cuda:0, and a tensor's device has its number
        place = (device, vars(loader))
        if self._place != place:
            self._placed, self.storage = loader.place(self._read, device)
            self._place = place
        return self

    def split(self, name: Split) -> Images | None:
        """The images of one split, or None where there is no such split; `load` comes first."""
        return self._loaded(name)

    def training(self) -> Images:
        """The training split as it is trained on: augmented, and corrupted where that is asked for."""
        train = self._loaded("train")
        assert train is not None
        if self.augmentation is None and self.corruption is None:
            return train
        return train.equipped(augmentation=self.augmentation, corruption=self.corruption)

    def pictured(self) -> Images:
        """The split that pictures are made of: validation, corrupted as training images are, but not augmented."""
        images = self._loaded("valid") or self._loaded("train")
        assert images is not None
        return images if self.corruption is None else images.equipped(corruption=self.corruption)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Images `(N, C, H, W)` as models see them, mapped back to [0, 1]."""
        return x if self.preprocessing is None else self.preprocessing.inverse(x)

    def _loaded(self, name: Split) -> ArrayImages | None:
        assert self._placed, "load() comes before split()"
        images = self._placed[name]
        return images and images.equipped(preprocessing=self.preprocessing)

    def _verify(self, splits: dict[str, ArrayImages | None]) -> None:
        digest = hashlib.sha256()
        for name, images in splits.items():
            if images is None:
                continue
            if images.labels is not None and len(images.labels) != len(images):
                raise UsageError(f"there are {len(images):,} {name} images and {len(images.labels):,} labels")
            if images.shape != tuple(self.shape):
                raise UsageError(f"the {name} images are {images.shape}, not {self.shape}")
            images.update(digest)
        found = len(splits["train"] or ())
        if found != self.num_train:
            raise UsageError(f"{type(self).__name__} has {found:,} training images here, not {self.num_train:,}")
        self.checksum = "sha256:" + digest.hexdigest()


class Stream:
    """The endless stream of training batches: one permutation of all images after the other.

    Batch i holds the stream's images i·B to (i + 1)·B: it is always full, may reach from one pass into the next, and is
    a function of (seed, i), wherever the images lie.

    Args:
        images: the training split.
        batch_size: B, images in a batch; at most as many as there are.
        seed: the run's seed.
        device: the training device, where bits and noise are made.
    """

    def __init__(self, images: Images, batch_size: int, *, seed: int, device: torch.device | str = "cpu") -> None:
        if batch_size > len(images):
            raise ValueError(f"a batch of {batch_size:,} cannot be filled from {len(images):,} images")
        self.images, self.batch_size, self.seed, self.device = images, batch_size, seed, torch.device(device)
        self.waited = 0.0
        """Seconds that were spent waiting for images which are not on the training device."""
        self._orders = _Orders(len(images), seed, self.device if images.resident else torch.device("cpu"))
        self._ahead: Iterator[Raw] | None = None
        self._next = -1

    def batch(self, step: int) -> Batch:
        """Batch number `step`."""
        return self.images.finish(self.raw(step), Draw(self.seed, "data", step, device=self.device))

    def raw(self, step: int) -> Raw:
        """The stored images of batch number `step`, on the training device."""
        if self.images.resident:
            return self.images.gather(self.index(step))
        begin = time.perf_counter()
        if self._ahead is None or self._next != step:
            self._ahead = self.images.ahead(self._indices(step))
        self._next = step + 1
        raw = next(self._ahead)
        self.waited += time.perf_counter() - begin
        return raw

    def index(self, step: int, count: int = 1) -> Tensor:
        """Numbers of the images of `count` batches, the first of them number `step`, with shape `(count · B,)`.

        Args:
            step: number of the first batch.
            count: how many; together at most one pass over the images.
        """
        return self._orders.cut(step * self.batch_size, count * self.batch_size)

    def close(self) -> None:
        """Ends the processes that read ahead."""
        self._ahead = None

    def _indices(self, step: int) -> Iterator[Tensor]:
        orders = _Orders(len(self.images), self.seed, torch.device("cpu"))
        while True:
            yield orders.cut(step * self.batch_size, self.batch_size)
            step += 1


class _Orders:
    """One permutation after the other, of which any piece can be asked for.

    They are made on the CPU, so that a run sees the same images on every device.
    """

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.count, self.seed, self.device = count, seed, device
        self._pass = -2  # none: not even the one before the first
        self._orders = torch.empty(0, dtype=torch.int64, device=device)

    def cut(self, start: int, length: int) -> Tensor:
        """Places `start` to `start` + `length` of the endless stream; at most `count` at a time."""
        number, inside = divmod(start, self.count)
        if number != self._pass:
            following = self._orders[self.count :] if number == self._pass + 1 else self._order(number)
            self._orders = torch.cat([following, self._order(number + 1)])
            self._pass = number
        return self._orders[inside : inside + length]

    def _order(self, number: int) -> Tensor:
        order = torch.randperm(self.count, generator=generator(self.seed, "order", number))
        if self.device.type == "cuda":
            order = order.pin_memory()  # or the copy would wait for the device
        return order.to(self.device, non_blocking=True)


def spread(count: int, most: int) -> Tensor:
    """At most `most` of the numbers 0 to count - 1, evenly spread, the first and the last among them, as int64."""
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).round().long()


def evaluation_batches(
    images: Fetched, batch_size: int, device: torch.device | str = "cpu", seed: int = 0
) -> Iterator[tuple[int, Batch]]:
    """All images once, in order, with the number of each batch's first image; the last batch may be short.

    Bits and dequantisation that a split draws are a function of (seed, number of the image).
    """
    for start in range(0, len(images), batch_size):
        index = torch.arange(start, min(start + batch_size, len(images)), device=device)
        yield start, images.fetch(index, BlockDraw(seed, "data", start, device=device))
