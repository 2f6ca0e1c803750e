"""Arrays by name from .npy, .npz and .pt files; nothing in them is executed, and what can be mapped is not read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from vae_train.data.storage.listing import SPLIT_NAMES
from vae_train.util.errors import ErrorDetail, UsageError

LABELS = ("labels", "label", "y", "targets", "target", "factors", "latents_classes", "classes")
"""Names that labels go by."""

ALONE = ""
"""The name of the only array of a file."""

MOST_NAMES = 12
"""Arrays that a message names."""

LONGEST_REASON = 200
"""Letters of what a reader says that a message repeats."""


def open_file(path: str) -> tuple[Mapping[str, np.ndarray], bool]:
    """The arrays of a file by name, and whether they are mapped: not read before they are asked for.

    Args:
        path: a .npy file (one array, mapped), a .npz file (read when it is asked for), or a .pt file with a tensor, or
            with tensors in a dict or a list (mapped).

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    try:
        file = Path(str(path)).expanduser()
        if file.is_dir():
            raise UsageError("is a folder: data=folder reads folders")
        if not file.is_file():
            raise UsageError("is no ordinary file" if file.exists() else "there is no such file")
        return _opened(file)
    except UsageError:
        raise
    except Exception as error:  # damaged files make the readers raise anything
        raise UsageError(_reason(error)) from error


def _opened(file: Path) -> tuple[Mapping[str, np.ndarray], bool]:
    suffix = file.suffix.lower()
    if suffix == ".npy":
        with file.open("rb") as start:
            if start.read(6) != np.lib.format.MAGIC_PREFIX:
                raise UsageError("is no .npy file, whatever its name says")
        return {ALONE: np.lib.format.open_memmap(file, mode="r")}, True
    if suffix == ".npz":
        if not is_zipfile(file):
            raise UsageError("is no .npz file, whatever its name says, or it is cut off")
        return _Archive(file), False
    if suffix in (".pt", ".pth"):
        mapped = is_zipfile(file)  # what old versions of PyTorch wrote must be read whole
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they advise what nobody here can do
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        return dict(_tensors(content)), mapped
    raise UsageError("is no .npy, .npz or .pt file")


class _Archive(Mapping[str, np.ndarray]):
    """A .npz file, whose members are read once.

    Args:
        file: the file, which is open only while a member is read.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._read = file, dict[str, np.ndarray]()
        with np.load(file, allow_pickle=False) as members:
            self._names = list(members.files)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._read:
            try:
                with np.load(self._file, allow_pickle=False) as members:
                    found = members[name]
            except Exception as error:  # see `open_file`
                raise UsageError(f"{name} {_reason(error)}") from error
            if not isinstance(found, np.ndarray):
                raise UsageError(f"{name} is no array")
            self._read[name] = found
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _tensors(content: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(content, Tensor):
        yield ALONE, _array(ALONE, content)
    if isinstance(content, list | tuple):
        content = dict(zip(("data", "targets"), content, strict=True) if _is_pair(content) else enumerate(content))
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, Tensor):
            yield str(name), _array(str(name), value)


def _is_pair(content: Sequence[Any]) -> bool:
    """Whether these are images and their labels, as torchvision saves them."""
    tensors = len(content) == 2 and all(isinstance(part, Tensor) for part in content)
    return tensors and content[0].ndim > content[1].ndim == 1 and len(content[0]) == len(content[1])


def _array(name: str, tensor: Tensor) -> np.ndarray:
    try:
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(force=True)
    except (TypeError, RuntimeError) as error:
        kind = f"{tensor.layout} tensor of {tensor.dtype}".replace("torch.", "")
        raise UsageError(f"{name or 'what it holds'} is a {kind}, which is no array: convert it first") from error


def names_of_images(arrays: Mapping[str, np.ndarray], key: str | None, labels: str | None = None) -> dict[str, str]:
    """For every split the name of the array that has its images.

    Names such as x_train, test_images or val say the split. Where none does, all images are in one array, which is the
    split "train" here.

    Args:
        arrays: the arrays of a file.
        key: the array's name, or what the splits' names have in common; None where it can be guessed.
        labels: likewise for the labels, which are no images.

    Raises:
        UsageError: no array can be meant, or several.
    """
    if key is not None and key in arrays:
        return {"train": key}
    if key is None and len(arrays) == 1:
        return {"train": next(iter(arrays))}
    candidates = [name for name in arrays if (_can_be_images(name, labels) if key is None else _means(key, name))]
    by_split: dict[str, list[str]] = {}
    for name in candidates:
        by_split.setdefault(_split(name) or "", []).append(name)
    named = {split: names for split, names in by_split.items() if split}
    chosen = named if "train" in named else {"train": candidates}
    if any(len(names) != 1 for names in chosen.values()):
        where, why = ("", "says which are the images") if key is None or candidates else (key, "there is no such array")
        raise UsageError([ErrorDetail(f"data.key={where}", f"{why}: the file has {_listed(arrays)}")])
    return {split: names[0] for split, names in chosen.items()}


def name_of_labels(arrays: Mapping[str, np.ndarray], images: str, key: str | None) -> str | None:
    """The array with the labels of the images called `images`; None where there is none.

    Args:
        arrays: the arrays of a file.
        images: the array with the images.
        key: the labels' name, or what the splits' names have in common; None where it can be guessed.

    Raises:
        UsageError: there is no array called `key`.
    """
    split = _split(images)
    fitting = [name for name in arrays if name != images and split in (None, _split(name))]
    if key is None:
        guessed = [name for name in fitting if _rest(name) in LABELS and _split(name) == split]
        return min(guessed, key=lambda name: LABELS.index(_rest(name)), default=None)
    wanted = [name for name in fitting if name == key or (_split(name) == split and _means(key, name))]
    if not wanted:
        what = f"there is no such array for {images}" if images else "there is no such array"
        raise UsageError([ErrorDetail(f"data.labels={key}", f"{what}: the file has {_listed(arrays)}")])
    return key if key in wanted else wanted[0]


def _can_be_images(name: str, labels: str | None) -> bool:
    return _rest(name) not in LABELS and not (labels is not None and _means(labels, name))


def _means(key: str, name: str) -> bool:
    """Whether somebody who says `key` can mean `name`, or the same of another split."""
    return key == name or _rest(key) == _rest(name)


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    names = [name or "one array without a name" for name in arrays]
    return ", ".join([*names[:MOST_NAMES], *(["…"] if len(names) > MOST_NAMES else [])]) or "no arrays"


def _split(name: str) -> str | None:
    """The split that a part of `name` names."""
    return next((SPLIT_NAMES[part] for part in _parts(name) if part in SPLIT_NAMES), None)


def _rest(name: str) -> str:
    """`name` without its split, in small letters."""
    if _split(name) is None:
        return name.lower()
    return "_".join(part for part in _parts(name) if part not in SPLIT_NAMES)


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]


def _reason(error: Exception) -> str:
    """Why a file cannot be read; what the readers advise would execute what is in it."""
    if isinstance(error, UnpicklingError):
        return "is damaged, or holds more than tensors alone or in a dict or a list; nothing else is unpickled"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, ValueError) and re.search("(?i)pickle|python objects", str(error)):
        return "holds Python objects, which are not unpickled: save arrays of numbers"
    first = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:LONGEST_REASON]
    return f"cannot be read, it may be cut off or damaged: {type(error).__name__} {first}".rstrip()
