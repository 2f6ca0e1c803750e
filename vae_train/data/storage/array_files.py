"""Arrays by name from .npy, .npz and .pt files. Nothing in a file is executed; arrays are mapped where possible."""

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

from vae_train.util.errors import UsageError

UNNAMED = ""
"""The name of a file's only array."""

MAX_REASON_LENGTH = 200
"""Characters of a reader's error that a message repeats."""


def open_file(path: str) -> tuple[Mapping[str, np.ndarray], bool]:
    """Opens the arrays of a file by name, and says whether they are mapped into memory.

    Args:
        path: a .npy file (one array, mapped), a .npz file (arrays are read at their first use), or a .pt file with a
            tensor, or with tensors in a dict or a list (mapped).

    Raises:
        UsageError: the file is missing or cannot be read.
    """
    try:
        file = Path(str(path)).expanduser()
        if file.is_dir():
            raise UsageError("is a folder; use data=folder")
        if not file.is_file():
            raise UsageError("is not a regular file" if file.exists() else "there is no such file")
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
                raise UsageError("is not a .npy file, despite its name")
        return {UNNAMED: np.lib.format.open_memmap(file, mode="r")}, True
    if suffix == ".npz":
        if not is_zipfile(file):
            raise UsageError("is not a .npz file, despite its name, or it is truncated")
        return _Archive(file), False
    if suffix in (".pt", ".pth"):
        mapped = is_zipfile(file)  # the old format of PyTorch cannot be mapped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they advise what the user cannot do here
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        return dict(_tensors(content)), mapped
    raise UsageError("is not a .npy, .npz or .pt file")


class _Archive(Mapping[str, np.ndarray]):
    """A .npz file whose arrays are read once, at their first use.

    Args:
        file: the file; open only while an array is read.
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
                    array = members[name]
            except Exception as error:  # see `open_file`
                raise UsageError(f"{name} {_reason(error)}") from error
            if not isinstance(array, np.ndarray):
                raise UsageError(f"{name} is not an array")
            self._read[name] = array
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _tensors(content: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(content, Tensor):
        yield UNNAMED, _array(UNNAMED, content)
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
        raise UsageError(f"{name or 'what it holds'} is a {kind}, which is not supported; convert it first") from error


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without the readers' advice, which would execute its content."""
    if isinstance(error, UnpicklingError):
        return "is damaged, or holds more than tensors alone or in a dict or a list; nothing else is unpickled"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, ValueError) and re.search("(?i)pickle|python objects", str(error)):
        return "holds Python objects, which are not unpickled: save arrays of numbers"
    first = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:MAX_REASON_LENGTH]
    return f"cannot be read, it may be truncated or damaged: {type(error).__name__} {first}".rstrip()
