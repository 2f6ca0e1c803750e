"""Arrays by name from .npy, .npz and .pt files; nothing in them is executed, and what can be mapped is not read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from vae_train.data.pipeline.listing import SPLIT_NAMES
from vae_train.errors import Mistake, UsageError

LABELS = ("labels", "label", "y", "targets", "target", "factors", "latents_classes", "classes")
"""Names that labels go by."""

ALONE = ""
"""The name of the only array of a file."""


def open_file(path: str) -> tuple[Mapping[str, np.ndarray], bool]:
    """The arrays of a file by name, and whether they are mapped: not read before they are asked for.

    Args:
        path: a .npy file (one array, mapped), a .npz file (read when it is asked for), or a .pt file with a tensor, or
            with tensors in a dict or a list (mapped).

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError("there is no such file" if not file.exists() else "is a folder: data=folder reads folders")
    try:
        if file.suffix == ".npy":
            return {ALONE: np.load(file, mmap_mode="r", allow_pickle=False)}, True
        if file.suffix == ".npz":
            return _Archive(np.load(file, allow_pickle=False)), False
        if file.suffix in (".pt", ".pth"):
            mapped = is_zipfile(file)  # what old versions of PyTorch wrote must be read whole
            return dict(_tensors(torch.load(file, map_location="cpu", weights_only=True, mmap=mapped))), mapped
    except Exception as error:  # damaged files make the readers raise anything
        raise UsageError(f"cannot be read: {_first_line(error)}") from error
    raise UsageError("is no .npy, .npz or .pt file")


class _Archive(Mapping[str, np.ndarray]):
    """A .npz file, whose members are read once.

    Args:
        members: what `np.load` gave.
    """

    def __init__(self, members: Any) -> None:
        self._members, self._read = members, dict[str, np.ndarray]()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._read:
            try:
                self._read[name] = self._members[name]
            except Exception as error:  # see `open_file`
                if name not in self._members.files:
                    raise KeyError(name) from error
                raise UsageError(f"{name} cannot be read: {_first_line(error)}") from error
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members.files)

    def __len__(self) -> int:
        return len(self._members.files)


def _tensors(content: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(content, Tensor):
        yield ALONE, _array(content)
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, Tensor):
            yield str(name), _array(value)


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def names_of_images(arrays: Mapping[str, np.ndarray], key: str | None) -> dict[str, str]:
    """For every split the name of the array that has its images.

    Names such as x_train, test_images or val say the split. Where none does, all images are in one array, which is the
    split "train" here.

    Args:
        arrays: the arrays of a file.
        key: the array's name, or what the splits' names have in common; None where it can be guessed.

    Raises:
        UsageError: no array can be meant, or several.
    """
    candidates = [name for name in arrays if _rest(name) not in LABELS and (key is None or key in (name, _rest(name)))]
    by_split: dict[str, list[str]] = {}
    for name in candidates:
        by_split.setdefault(_split(name) or "", []).append(name)
    named = {split: names for split, names in by_split.items() if split}
    chosen = named if "train" in named and key not in by_split.get("", ()) else {"train": candidates}
    if any(len(names) != 1 for names in chosen.values()):
        found = ", ".join(arrays) or "no arrays"
        raise UsageError([Mistake("data.key=", f"says which are the images: the file has {found}")])
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
    fitting = [name for name in arrays if _split(name) == split and name != images]
    wanted = [name for name in fitting if (key in (name, _rest(name)) if key else _rest(name) in LABELS)]
    if key and not wanted:
        raise UsageError(f"has no array called {key} ({', '.join(arrays)})")
    return wanted[0] if wanted else None


def _split(name: str) -> str | None:
    """The split that a part of `name` names."""
    return next((SPLIT_NAMES[part] for part in _parts(name) if part in SPLIT_NAMES), None)


def _rest(name: str) -> str:
    """`name` without its split."""
    if _split(name) is None:
        return name
    return "_".join(part for part in _parts(name) if part not in SPLIT_NAMES)


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
