"""What a data set is, and how batches are cut from it.

Pixels are stored as uint8 levels k on the training device and leave as float32 x = k / (levels - 1) in [0, 1].
Batch i is a function of (seed, i): the order is an endless stream of permutations, one per pass over the data, and
resuming at batch i is `start=i`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vae_train.draws import Draw, generator
from vae_train.errors import UsageError

Shape = tuple[int, ...]
Split = Literal["train", "valid", "test"]
Binarize = Literal["none", "dynamic", "threshold"]


class Batch(NamedTuple):
    """Some images and what is known of them."""

    x: Tensor
    """(B, C, H, W) float32 in [0, 1], the target."""
    y: Tensor | None = None
    """(B, F) int64 labels or factors of variation."""
    seen: Tensor | None = None
    """(B, C, H, W) what the encoder sees, where it is not `x`."""
    observed: Tensor | None = None
    """(B, 1 or C, H, W) bool, the pixels that count; None where all do."""

    def part(self, start: int, stop: int) -> Batch:
        """Images `start` to `stop` of the batch."""
        rest = (None if field is None else field[start:stop] for field in self[1:])
        return Batch(self.x[start:stop], *rest)


class Images(Protocol):
    """One split of a data set."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def fetch(self, index: Tensor, draw: Draw | None = None) -> Batch:
        """The images with the numbers `index`, an int64 tensor with shape `(B,)`."""
        ...


class ArrayImages:
    """Images of one split in one uint8 tensor, gathered on the device that they lie on.

    Args:
        pixels: uint8 tensor with shape `(N, C, H, W)` and values below `levels`.
        levels: number of values that a pixel can take.
        labels: int64 tensor with shape `(N, F)`, or None.
        stochastic: whether each fetch draws every pixel as 0 or 1 with probability x, from the `draw` that it is given.
    """

    def __init__(self, pixels: Tensor, levels: int, labels: Tensor | None = None, stochastic: bool = False) -> None:
        self.pixels, self.levels, self.labels, self.stochastic = pixels, levels, labels, stochastic

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> ArrayImages:
        """The same images on another device."""
        labels = None if self.labels is None else self.labels.to(device)
        return ArrayImages(self.pixels.to(device), self.levels, labels, self.stochastic)

    def fetch(self, index: Tensor, draw: Draw | None = None) -> Batch:
        """See `Images.fetch`. Without a `draw` a stochastic split gives its grey values."""
        index = index.to(self.pixels.device)
        x = self.pixels.index_select(0, index).mul(1 / (self.levels - 1))  # float32 by type promotion, in one pass
        if self.stochastic and draw is not None:
            x = (draw.uniform((1, *x.shape))[0] < x).float()
        return Batch(x, None if self.labels is None else self.labels.index_select(0, index))


class Dataset(ABC):
    """Facts about a data set, and its splits.

    The facts are known without the data being there; `load` checks them. A subclass sets them in its constructor and
    implements `read`.
    """

    shape: Shape
    """(C, H, W) of one image."""
    levels: int
    """Number of values that a pixel of a batch can take: 2 for binary data."""
    num_train: int
    """Number of training images."""
    classes: int | None
    """Number of classes that `Batch.y` names, or None where there are no labels."""

    def __init__(self) -> None:
        self._splits: dict[str, ArrayImages | None] | None = None
        self.checksum = ""

    @abstractmethod
    def read(self) -> dict[str, ArrayImages | None]:
        """Reads all splits into memory; None for a split that the data set does not have.

        Raises:
            UsageError: the data is not there or cannot be read; says what to do.
        """

    def load(self, device: torch.device | str = "cpu") -> Dataset:
        """Reads the data, checks it against the facts and puts it on `device`; returns itself."""
        if self._splits is None:
            self._splits = self.read()
            self._verify(self._splits)
        self._splits = {name: s and s.to(torch.device(device)) for name, s in self._splits.items()}
        return self

    def split(self, name: Split) -> Images | None:
        """The images of one split, or None where there is no such split; `load` comes first."""
        assert self._splits is not None, "load() comes before split()"
        return self._splits[name]

    def _verify(self, splits: dict[str, ArrayImages | None]) -> None:
        digest = hashlib.sha256()
        for name, images in splits.items():
            if images is None:
                continue
            digest.update(images.pixels.numpy().tobytes())
            if images.labels is not None and len(images.labels) != len(images):
                raise UsageError(f"there are {len(images):,} {name} images and {len(images.labels):,} labels")
            if images.pixels.shape[1:] != self.shape:
                raise UsageError(f"the {name} images are {tuple(images.pixels.shape[1:])}, not {self.shape}")
        found = len(splits["train"] or ())
        if found != self.num_train:
            raise UsageError(f"{type(self).__name__} has {found:,} training images here, not {self.num_train:,}")
        self.checksum = "sha256:" + digest.hexdigest()


@dataclass
class Arrays:
    """Grey values and labels of one split, before anything is binarised."""

    pixels: np.ndarray
    """(N, C, H, W) uint8."""
    labels: np.ndarray
    """(N,) class numbers."""

    def take(self, index: Any) -> Arrays:
        """The images at `index` (a slice or an array of numbers)."""
        return Arrays(self.pixels[index], self.labels[index])


def images(split: Arrays | None, levels: int, binarize: Binarize, rng: np.random.RandomState) -> ArrayImages | None:
    """Images for evaluation: binarised once, where they are binarised at all.

    Args:
        split: grey values, or None for a split that does not exist.
        levels: number of grey values.
        binarize: "dynamic" draws every pixel once from `rng` with probability k / (levels - 1).
        rng: NumPy's legacy generator, whose stream does not change between versions; it is advanced.
    """
    if split is None:
        return None
    pixels = split.pixels
    if binarize == "dynamic":
        pixels = drawn_bits(pixels, levels, rng)
    return _array_images(pixels, split.labels, levels, binarize, stochastic=False)


def drawn_bits(pixels: np.ndarray, levels: int, rng: np.random.RandomState) -> np.ndarray:
    """`rng.binomial(1, p)` as uint8 for p = k / (levels - 1) in float32, bit for bit, in a fraction of the time.

    Of every uniform U NumPy's legacy generator makes a 1 where U exceeds 1 - p, if p is at most a half, and otherwise
    a 0 where it exceeds p.
    """
    chance = (np.arange(levels, dtype=np.float32) / np.float32(levels - 1)).astype(np.float64)
    threshold = np.exp(np.log(np.maximum(chance, 1 - chance)))
    exceeds = rng.random_sample(pixels.shape) > threshold[pixels]
    return (exceeds == (chance <= 0.5)[pixels]).astype(np.uint8)


def training_images(split: Arrays, levels: int, binarize: Binarize) -> ArrayImages:
    """Images for training: under "dynamic" they stay grey here and every fetch draws them afresh."""
    return _array_images(split.pixels, split.labels, levels, binarize, stochastic=binarize == "dynamic")


def _array_images(
    pixels: np.ndarray, labels: np.ndarray, levels: int, binarize: Binarize, stochastic: bool
) -> ArrayImages:
    if binarize == "threshold":
        pixels = (pixels >= levels / 2).astype(np.uint8)
    stored_levels = levels if binarize == "none" or stochastic else 2
    y = torch.as_tensor(np.asarray(labels, dtype=np.int64))[:, None]
    return ArrayImages(torch.as_tensor(np.ascontiguousarray(pixels)), stored_levels, y, stochastic)


def stored_split(
    train: Arrays, test: Arrays, num_train: int, seed: int, levels: int, binarize: Binarize
) -> dict[str, ArrayImages | None]:
    """Cuts a validation split from published training images and keeps the published test images.

    Args:
        train: the published training images.
        test: the published test images.
        num_train: how many images stay for training.
        seed: decides which images these are, and the bits of validation and test (validation first).
        levels: number of grey values.
        binarize: see `images`.
    """
    order = shuffled(len(train.pixels), seed)
    rng = np.random.RandomState(seed)
    return {
        "train": training_images(train.take(order[:num_train]), levels, binarize),
        "valid": images(train.take(order[num_train:]), levels, binarize, rng),
        "test": images(test, levels, binarize, rng),
    }


def shuffled(count: int, seed: int) -> np.ndarray:
    """A permutation of `count` images that is the same on every machine and in every version of NumPy."""
    return np.random.RandomState(seed).permutation(count)


def open_idx(name: str, root: str, train: bool) -> Arrays:
    """Images of 28x28 grey pixels in MNIST's format, which several data sets have.

    Files that are whole are read here: importing torchvision for that would take longer than reading them. It looks
    after everything else, see `open_torchvision`.

    Args:
        name: class in `torchvision.datasets`, and the folder within `root`.
        root: see `open_torchvision`.
        train: see `open_torchvision`.
    """
    files = [f"{'train' if train else 't10k'}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
    pixels, labels = (_read_idx(Path(root) / name / "raw" / file) for file in files)
    if pixels is None or labels is None or pixels.ndim != 3 or labels.shape != (len(pixels),):
        opened = open_torchvision(name, root, f"{name}/raw", train)
        pixels, labels = opened.data.numpy(), opened.targets.numpy()
    return Arrays(pixels[:, None], labels)


def _read_idx(path: Path) -> np.ndarray | None:
    """The uint8 array of an idx file; None where it is missing or not such a file.

    Two zero bytes, 8 for uint8, the number of dimensions, the dimensions as big-endian 32-bit integers, the values.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError:
        return None
    if content[:3].tolist() != [0, 0, 8] or len(content) < 4 + 4 * (dimensions := int(content[3])):
        return None
    shape, values = content[4 : 4 + 4 * dimensions].view(">u4").tolist(), content[4 + 4 * dimensions :]
    return values.reshape(shape) if math.prod(shape) == len(values) else None


def open_torchvision(name: str, root: str, folder: str, train: bool) -> Any:
    """Opens a data set of torchvision from `root`, downloading it where it is not there.

    Args:
        name: class in `torchvision.datasets`.
        root: the folder that torchvision's layout starts in.
        folder: where the files belong, relative to `root` (for the message).
        train: the training or the test part.

    Raises:
        UsageError: it is not there and cannot be downloaded, or cannot be read.
    """
    from torchvision import datasets

    factory = getattr(datasets, name)
    place = Path(root) / folder
    try:
        return factory(root, train=train, download=False)
    except RuntimeError:
        pass  # torchvision's way to say that the files are not there or are damaged
    except (OSError, ValueError, EOFError, AssertionError, KeyError, TypeError) as error:
        raise UsageError(
            f"cannot read {name} in {place}: {error}; remove these files to download them again"
        ) from error
    missing = [path for path in (place, *place.parents) if not path.exists()]
    try:
        return factory(root, train=train, download=True)
    except Exception as error:
        _remove_empty(missing)
        raise UsageError(
            f"{name} is not in {place} (or is damaged there) and could not be downloaded ({_reason(error)}). Either "
            f"put torchvision's files there, or point data.root= at a folder that has {folder}, or use data=digits"
        ) from error


def _remove_empty(folders: list[Path]) -> None:
    """Takes back the folders that a failed download made, innermost first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[-1] if text else type(error).__name__


class Stream:
    """The endless stream of training batches: one permutation of all images after the other.

    Batch i holds the stream's images i·B to (i + 1)·B: it is always full, may reach from one pass into the next, and is
    a function of (seed, i). Orders, binarisation and noise are made on `device`.

    Args:
        images: the training split.
        batch_size: B, images in a batch; at most as many as there are.
        seed: the run's seed.
        device: where orders and noise are made; that of the images, where these are in memory.
    """

    def __init__(self, images: Images, batch_size: int, *, seed: int, device: torch.device | str = "cpu") -> None:
        if batch_size > len(images):
            raise ValueError(f"a batch of {batch_size:,} cannot be filled from {len(images):,} images")
        self.images, self.batch_size, self.seed, self.device = images, batch_size, seed, torch.device(device)
        self._pass = -2  # none: not even the one before the first
        self._orders = torch.empty(0, dtype=torch.int64, device=self.device)

    def batch(self, step: int) -> Batch:
        """Batch number `step`."""
        return self.images.fetch(self.index(step), Draw(self.seed, "data", step, device=self.device))

    def index(self, step: int, count: int = 1) -> Tensor:
        """Numbers of the images of `count` batches, the first of them number `step`, with shape `(count · B,)`.

        Args:
            step: number of the first batch.
            count: how many; together at most one pass over the images.
        """
        number, inside = divmod(step * self.batch_size, len(self.images))
        if number != self._pass:
            following = self._orders[len(self.images) :] if number == self._pass + 1 else self._order(number)
            self._orders = torch.cat([following, self._order(number + 1)])
            self._pass = number
        return self._orders[inside : inside + count * self.batch_size]

    def _order(self, number: int) -> Tensor:
        source = generator(self.seed, "order", number, device=self.device)
        return torch.randperm(len(self.images), generator=source, device=self.device)


def evaluation_batches(
    images: Images, batch_size: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[int, Batch]]:
    """All images once, in order, with the number of each batch's first image; the last batch may be short."""
    for start in range(0, len(images), batch_size):
        yield start, images.fetch(torch.arange(start, min(start + batch_size, len(images)), device=device))
