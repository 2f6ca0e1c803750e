"""Published data sets that are read into memory: splits, bits, and files in the formats that they come in."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from vae_train.data.storage.splits import shuffled
from vae_train.data.storage.stored import ArrayImages, Binarize
from vae_train.util.errors import UsageError


@dataclass
class Arrays:
    """Grey values and labels of one split, before anything is binarised."""

    pixels: np.ndarray
    """(N, C, H, W) uint8."""
    labels: np.ndarray
    """(N,) class numbers, or (N, F) factors."""

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
    y = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    y = y[:, None] if y.ndim == 1 else y
    return ArrayImages(torch.as_tensor(np.ascontiguousarray(pixels)), stored_levels, y, stochastic)


def stored_split(
    train: Arrays,
    test: Arrays,
    num_train: int,
    seed: int,
    levels: int,
    binarize: Binarize,
    extra: Arrays | None = None,
) -> dict[str, ArrayImages | None]:
    """Cuts a validation split from published training images and keeps the published test images.

    Args:
        train: the published training images.
        test: the published test images.
        num_train: how many images are for training, `extra` included.
        seed: decides which images these are, and the bits of validation and test (validation first).
        levels: number of grey values.
        binarize: see `images`.
        extra: further training images, none of which validate.
    """
    order = shuffled(len(train.pixels), seed)
    rng = np.random.RandomState(seed)
    kept = num_train if extra is None else num_train - len(extra.pixels)
    mine = train.take(order[:kept])
    return {
        "train": training_images(mine if extra is None else joined(mine, extra), levels, binarize),
        "valid": images(train.take(order[kept:]), levels, binarize, rng),
        "test": images(test, levels, binarize, rng),
    }


def joined(first: Arrays, second: Arrays) -> Arrays:
    """The images of both."""
    return Arrays(
        np.concatenate([first.pixels, second.pixels]),
        np.concatenate([first.labels, second.labels]),
    )


def open_idx(name: str, root: str, train: bool, subset: str | None = None) -> Arrays:
    """Images of 28x28 grey pixels in MNIST's format, which several data sets have.

    Files that are whole are read here: importing torchvision for that would take longer than reading them. It looks
    after everything else, see `open_torchvision`.

    Args:
        name: class in `torchvision.datasets`, and the folder within `root`.
        root: see `open_torchvision`.
        train: the training or the test part.
        subset: torchvision's `split` where the data set has several of these.
    """
    start = "train" if train else "t10k"
    part: dict[str, Any] = {"train": train}
    if subset is not None:
        start = f"{name.lower()}-{subset}-{'train' if train else 'test'}"
        part["split"] = subset
    files = [f"{start}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
    pixels, labels = (_read_idx(Path(root) / name / "raw" / file) for file in files)
    if pixels is None or labels is None or pixels.ndim != 3 or labels.shape != (len(pixels),):
        opened = open_torchvision(name, root, f"{name}/raw", part)
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


def open_cifar(name: str, root: str, folder: str, train: bool) -> Arrays:
    """Images of 32x32 coloured pixels in CIFAR's format.

    Args:
        name: see `open_torchvision`.
        root: see `open_torchvision`.
        folder: see `open_torchvision`.
        train: the training or the test part.
    """
    part = open_torchvision(name, root, folder, {"train": train})
    return Arrays(part.data.transpose(0, 3, 1, 2), np.asarray(part.targets))


def open_torchvision(name: str, root: str, folder: str, part: Mapping[str, Any]) -> Any:
    """Opens a data set of torchvision from `root`, downloading it where it is not there.

    Args:
        name: class in `torchvision.datasets`.
        root: the folder that torchvision's layout starts in.
        folder: where the files belong (or the one file that there is), relative to `root` (for the message).
        part: the class's arguments that say which part is wanted.

    Raises:
        UsageError: it is not there and cannot be downloaded, or cannot be read.
    """
    from torchvision import datasets

    factory = getattr(datasets, name)
    place = Path(root) / folder
    try:
        return factory(root, **part, download=False)
    except RuntimeError:
        pass  # torchvision's way to say that the files are not there or are damaged
    except (OSError, ValueError, EOFError, AssertionError, KeyError, TypeError) as error:
        raise UsageError(
            f"cannot read {name} in {place}: {error}; remove these files to download them again"
        ) from error
    missing = [path for path in (place, *place.parents) if not path.exists()]
    try:
        return factory(root, **part, download=True)
    except Exception as error:
        _remove_empty(missing)
        raise UsageError(unavailable(name, place, folder, error, "torchvision's files")) from error


def unavailable(name: str, place: Path, folder: str, error: Exception, files: str) -> str:
    """What to say of a data set that is not there and cannot be downloaded, and what to do.

    Args:
        name: of the data set.
        place: where it should be.
        folder: the same, relative to `data.root`.
        error: why the download failed.
        files: what belongs there, in words.
    """
    return (
        f"{name} is not in {place} (or is damaged there) and could not be downloaded ({_reason(error)}). Either "
        f"put {files} there, or point data.root= at a folder that has {folder}, or use data=digits"
    )


@contextmanager
def replacing(place: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which is put in its place when it is complete, and removed where that fails."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


def mapped(place: Path) -> np.ndarray | None:
    """An array that is mapped from an .npy file; None where there is none or it is cut short."""
    try:
        return np.load(place, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None


def _remove_empty(folders: list[Path]) -> None:
    """Takes back the folders that a failed download made, innermost first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[-1] if text else type(error).__name__
