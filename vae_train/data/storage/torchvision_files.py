"""Published data sets in the files of torchvision, downloaded if they are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_train.data.storage.download import unavailable
from vae_train.data.storage.published import Arrays
from vae_train.util.errors import UsageError


def open_idx(name: str, root: str, train: bool, subset: str | None = None) -> Arrays:
    """Reads images of 28x28 grey pixels in MNIST's format.

    Intact files are read here, since importing torchvision takes longer than reading them. Anything else is left to
    `open_torchvision`.

    Args:
        name: class in `torchvision.datasets`, and the folder within `root`.
        root: see `open_torchvision`.
        train: whether to read the training or the test part.
        subset: torchvision's `split`, for a data set that has several.
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
    """The uint8 array of an idx file; None if it is missing or is another kind of file.

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
    """Reads images of 32x32 coloured pixels in CIFAR's format.

    Args:
        name: see `open_torchvision`.
        root: see `open_torchvision`.
        folder: see `open_torchvision`.
        train: whether to read the training or the test part.
    """
    part = open_torchvision(name, root, folder, {"train": train})
    return Arrays(part.data.transpose(0, 3, 1, 2), np.asarray(part.targets))


def open_torchvision(name: str, root: str, folder: str, part: Mapping[str, Any]) -> Any:
    """Opens a data set of torchvision, and downloads it if it is missing.

    Args:
        name: class in `torchvision.datasets`.
        root: the folder that torchvision's layout starts in.
        folder: where the files belong (or the one file), relative to `root`; for the message.
        part: the class's arguments that say which part is wanted.

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
    missing = [path for path in (place, *place.parents) if not path.exists()]
    try:
        return factory(root, **part, download=True)
    except Exception as error:
        _remove_empty(missing)
        raise UsageError(unavailable(name, place, folder, error, "torchvision's files")) from error


def _remove_empty(folders: list[Path]) -> None:
    """Removes the folders that a failed download made, innermost first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
