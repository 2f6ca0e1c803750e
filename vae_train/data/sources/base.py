"""The interface of data sources, and tools for published data sets: files, splits, binarisation."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from typing_extensions import override

from vae_train.batch import SPLITS, DataFacts, Factor, Shape, Split
from vae_train.data.storage.stored import Splits, StoredImages, TensorStore, shuffled
from vae_train.util.errors import UsageError
from vae_train.util.files import SavedPath
from vae_train.util.runtime import memory_shortage
from vae_train.util.text import size

MAX_IDX_DIMENSIONS = 3
"""Maximal number of dimensions in the files of MNIST and similar data sets."""

SPLIT_SEED = 123
"""Seed of the random choice of validation images among published training images."""

Binarize = Literal["none", "dynamic", "threshold"]
""""none" keeps grey levels. "dynamic" samples bits with grey values as probabilities, for every training batch anew
and once for validation and test. "threshold" rounds at 1/2."""


class Contents(NamedTuple):
    """The contents of a source."""

    splits: Splits
    bad_files: tuple[tuple[str, str], ...] = ()
    """Files that were skipped, each with the reason."""
    notes: tuple[str, ...] = ()
    """What was left out, replaced or guessed, a sentence each."""


class Source(ABC):
    """A source of images: a published data set, a folder or a file.

    A source is a frozen dataclass whose fields are the settings of its YAML file, so that sources with equal settings
    are equal and read only once.
    """

    @abstractmethod
    def inspect(self) -> DataFacts:
        """Facts about the images. Reads files, and decodes those of a folder, only as far as needed.

        Raises:
            UsageError: the data is missing, or does not match the settings.
        """

    @abstractmethod
    def read(self) -> Contents:
        """Reads or opens all splits.

        Raises:
            UsageError: the data is missing or cannot be read.
        """

    def resolved(self) -> dict[str, Any]:
        """Inferred values of settings that were null, for the run's config.yaml."""
        return {}


class Arrays(NamedTuple):
    """Grey values and labels of one split, before binarisation."""

    pixels: np.ndarray
    """uint8 with shape `(N, C, H, W)`."""
    labels: np.ndarray
    """Class numbers with shape `(N,)`."""

    def take(self, index: Any) -> Arrays:
        """The images at `index`, a slice or an array of indices."""
        return Arrays(self.pixels[index], self.labels[index])


def class_facts(
    data_shape: Shape, num_train: int, num_classes: int, binarize: Binarize, levels: int = 256
) -> DataFacts:
    """Facts about images with one label each."""
    return DataFacts(data_shape, binarized_levels(levels, binarize), num_train, (Factor("class", num_classes),))


def cut_valid(train: Arrays, test: Arrays, num_train: int) -> dict[Split, Arrays]:
    """Splits the published training images into `num_train` training images and validation images."""
    order = shuffled(len(train.pixels), SPLIT_SEED)
    return {"train": train.take(order[:num_train]), "valid": train.take(order[num_train:]), "test": test}


def joined(first: Arrays, second: Arrays) -> Arrays:
    """Concatenates two sets of images."""
    return Arrays(*map(np.concatenate, zip(first, second, strict=True)))


def binarized_levels(levels: int, binarize: Binarize) -> int:
    """Number of values of a pixel that a model sees."""
    return levels if binarize == "none" else 2


def random_bits(pixels: np.ndarray, levels: int, rng: np.random.RandomState) -> np.ndarray:
    """`rng.binomial(1, p)` as uint8 for p = k / (levels - 1) in float32, bit for bit, in a fraction of the time.

    NumPy's legacy generator returns 1 if a uniform number exceeds 1 - p for p <= 1/2, and otherwise 0 if it exceeds p.
    """
    probability = (np.arange(levels, dtype=np.float32) / np.float32(levels - 1)).astype(np.float64)
    threshold = np.exp(np.log(np.maximum(probability, 1 - probability)))
    exceeds = rng.random_sample(pixels.shape) > threshold[pixels]
    return (exceeds == (probability <= 0.5)[pixels]).astype(np.uint8)


def binarized(splits: Mapping[Split, Arrays], levels: int, binarize: Binarize, seed: int) -> Splits:
    """Stores the grey images of published splits.

    With "dynamic", training images stay grey, and every fetch samples new bits. The bits of validation and test
    images are sampled once, here, validation first.

    Args:
        splits: grey values of the existing splits.
        levels: number of grey values.
        binarize: how grey values become bits.
        seed: seed of NumPy's legacy generator for the bits, which is the same in every version.
    """
    rng = np.random.RandomState(seed)
    stored: Splits = {}
    for name in (split for split in SPLITS if split in splits):
        pixels, stochastic = splits[name].pixels, binarize == "dynamic" and name == "train"
        if binarize == "threshold":
            pixels = (pixels >= levels / 2).astype(np.uint8)
        elif binarize == "dynamic" and not stochastic:
            pixels = random_bits(pixels, levels, rng)
        store = TensorStore(torch.as_tensor(np.ascontiguousarray(pixels)))
        labels = torch.as_tensor(splits[name].labels, dtype=torch.int64)[:, None]
        num_stored = levels if stochastic else binarized_levels(levels, binarize)
        stored[name] = StoredImages(store, num_stored, labels, stochastic)
    return stored


@dataclass(frozen=True)
class PublishedSource(Source):
    """Images with 256 levels, published as training and test images; validation images are split from the former.

    Args:
        root: the folder; missing files are downloaded to it.
        binarize: see `Binarize`.
    """

    root: str
    binarize: Binarize
    bits_seed: ClassVar[int] = SPLIT_SEED
    """Seed of the bits of validation and test images."""

    @abstractmethod
    def open(self, train: bool) -> Arrays:
        """Reads the published training or test images.

        Raises:
            UsageError: they are missing and cannot be downloaded, or cannot be read.
        """

    def grey_splits(self) -> dict[Split, Arrays]:
        """Reads all splits, before binarisation."""
        return cut_valid(self.open(train=True), self.open(train=False), self.inspect().num_train)

    @override
    def read(self) -> Contents:
        return Contents(binarized(self.grey_splits(), 256, self.binarize, self.bits_seed))


class IdxSource(PublishedSource):
    """Grey images of 28x28 pixels in ten classes and in MNIST's format, in the folder `<name>/raw` of `root`."""

    name: ClassVar[str]
    """Class in `torchvision.datasets`."""
    num_train: ClassVar[int]

    @override
    def inspect(self) -> DataFacts:
        return class_facts((1, 28, 28), self.num_train, 10, self.binarize)

    @override
    def open(self, train: bool) -> Arrays:
        return open_idx(self.name, self.root, "train" if train else "t10k", {"train": train})


def open_idx(name: str, root: str, stem: str, part: Mapping[str, Any]) -> Arrays:
    """Reads images of 28x28 grey pixels in MNIST's format.

    Intact files are read here, since importing torchvision takes longer than reading them. Other cases are left to
    `open_torchvision`.

    Args:
        name: class in `torchvision.datasets`, and the folder within `root`.
        root: see `open_torchvision`.
        stem: prefix of the names of the two files.
        part: see `open_torchvision`.
    """
    files = [f"{stem}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
    pixels, labels = (_read_idx(Path(root) / name / "raw" / file) for file in files)
    if pixels is None or labels is None or pixels.ndim != 3 or labels.shape != (len(pixels),):
        opened = open_torchvision(name, root, f"{name}/raw", part)
        pixels, labels = opened.data.numpy(), opened.targets.numpy()
    return Arrays(pixels[:, None], labels)


def _read_idx(path: Path) -> np.ndarray | None:
    """The uint8 array of an idx file; None if it is missing or not such a file.

    Format: two zero bytes, 8 for uint8, the number of dimensions, the dimensions as big-endian 32-bit integers, the
    values.

    Raises:
        UsageError: the file has another size than its header says, or does not fit into memory.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4 + 4 * MAX_IDX_DIMENSIONS)
            if head[:3] != b"\0\0\x08" or len(head) < 4 or len(head) < (start := 4 + 4 * head[3]):
                return None
            shape, stored = np.frombuffer(head[4:start], ">u4").tolist(), os.fstat(file.fileno()).st_size - start
            if (stated := math.prod(shape)) != stored:
                claim = f"its header says {' x '.join(map(str, shape))} bytes, {size(stated)}; it has {size(stored)}"
                raise UsageError(f"{path} is damaged: {claim}; remove it to download it again")
            if shortage := memory_shortage(stored):
                raise UsageError(f"{path} {shortage}")
            file.seek(start)
            return np.fromfile(file, np.uint8).reshape(shape)
    except OSError:
        return None


def open_torchvision(name: str, root: str, folder: str, part: Mapping[str, Any]) -> Any:
    """Opens a data set of torchvision, and downloads it if it is missing.

    Args:
        name: class in `torchvision.datasets`.
        root: the `root` of torchvision.
        folder: path of the files (or the file) relative to `root`, for messages.
        part: arguments of the class that select a part.

    Raises:
        UsageError: the files are missing and cannot be downloaded, or cannot be read.
    """
    from torchvision import datasets

    factory = getattr(datasets, name)
    place = Path(root) / folder
    try:
        return factory(root, **part, download=False)
    except RuntimeError:
        pass  # torchvision raises it for missing and for damaged files
    except (OSError, ValueError, EOFError, AssertionError, KeyError, TypeError) as error:
        raise UsageError(
            f"cannot read {name} in {place}: {error}; remove these files to download them again"
        ) from error
    check_download(name, root)
    missing = [path for path in (place, *place.parents) if not path.exists()]
    try:
        return factory(root, **part, download=True)
    except Exception as error:
        for path in missing:  # created by the failed download, innermost first
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise UsageError(unavailable(name, place, folder, error, "torchvision's files")) from error


def check_download(name: str, root: str) -> None:
    """Rejects downloads to a folder that only a saved run names, unless it is below the user's data folder.

    Raises:
        UsageError: says how to name the folder.
    """
    own = Path(os.environ.get("VAE_DATA") or "data").resolve()
    if isinstance(root, SavedPath) and not Path(root).resolve().is_relative_to(own):
        raise UsageError(
            f"{name} is missing or damaged, and vae does not download to a folder that only the run names; "
            f"use data.root={own} for your own data"
        )


def unavailable(name: str, place: Path, folder: str, error: Exception, files: str) -> str:
    """The message for a data set that is missing and cannot be downloaded.

    Args:
        name: name of the data set.
        place: where it was expected.
        folder: the same, relative to `data.root`.
        error: why the download failed.
        files: the files that belong there.
    """
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return (
        f"{name} is missing or damaged in {place} and could not be downloaded ({reason}). Either put {files} "
        f"there, or set data.root= to a folder that contains {folder}, or use data=digits"
    )
