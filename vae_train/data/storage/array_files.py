"""Opens .npy, .npz, .pt and .csv files as arrays by name.

Nothing in a file is executed; arrays are memory-mapped if possible.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor

from vae_train.data.storage.csv_files import read_table
from vae_train.data.storage.library_messages import quiet
from vae_train.util.errors import UsageError
from vae_train.util.runtime import memory_shortage
from vae_train.util.text import size

CSV_FACTOR = 10
"""Bytes of memory per byte of a table while it is read."""

UNNAMED = ""
"""The name of a file's only array."""

MAX_REASON_LENGTH = 200
"""Maximal length of a reader's error in a message, in characters."""

CONVERSIONS = {
    ".mat": """from scipy.io import loadmat; import numpy; numpy.save("data.npy", loadmat("{file}")["NAME"])""",
    ".pkl": """import pickle, numpy; numpy.save("data.npy", numpy.asarray(pickle.load(open("{file}", "rb"))))""",
}
"""Suffix of unsupported files, which may execute code or need another library -> how to convert them."""


def open_file(path: str) -> tuple[Mapping[str, np.ndarray], bool]:
    """Opens the arrays of a file by name; also returns whether they are memory-mapped.

    Args:
        path: a .npy file (one array, mapped), a .npz file (arrays are read on access), a .pt file with a
            tensor or with a dict or list of tensors (mapped), or a .csv or .tsv file with a table.

    Raises:
        UsageError: the file is missing or cannot be read.
    """
    try:
        file = Path(os.path.expanduser(str(path)))
        if file.is_dir():
            raise UsageError("is a folder; use data=folder")
        if not file.is_file():
            raise UsageError("is not a regular file" if file.exists() else "no such file")
        return _opened(file)
    except UsageError:
        raise
    except Exception as error:  # readers raise errors of any kind for damaged files
        raise UsageError(_reason(error)) from error


def _opened(file: Path) -> tuple[Mapping[str, np.ndarray], bool]:
    suffix = file.suffix.lower()
    with file.open("rb") as start:
        if re.match(rb"\s*<(!doctype|html)", start.read(100), re.IGNORECASE):
            raise UsageError("is an HTML page, despite its name; the download saved a web page instead of the file")
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
        mapped = is_zipfile(file)  # PyTorch's old format cannot be mapped
        with quiet():  # PyTorch's advice does not apply here
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        return _arrays(content), mapped
    if suffix in (".csv", ".tsv"):
        check_memory("as a table", CSV_FACTOR * file.stat().st_size)
        return {UNNAMED: read_table(file)}, False
    if suffix in CONVERSIONS:
        raise UsageError(f"is not supported; convert it in Python: {CONVERSIONS[suffix].format(file=file.name)}")
    raise UsageError("is not a .npy, .npz, .pt or .csv file")


class _Archive(Mapping[str, np.ndarray]):
    """A .npz file, which is only open while an array is read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with np.load(file, allow_pickle=False) as members:
            self._names = list(members.files)

    def __getitem__(self, name: str) -> np.ndarray:
        with ZipFile(self._file) as archive:
            _check_member(archive, name if name in archive.namelist() else f"{name}.npy")
        with np.load(self._file, allow_pickle=False) as members:
            return members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _check_member(archive: ZipFile, name: str) -> None:
    """Rejects an array that exceeds the memory, or the data in its file, before it is unpacked.

    Raises:
        UsageError: reports the size.
    """
    stored = archive.getinfo(name).file_size
    check_memory("unpacked", stored)
    if not name.endswith(".npy"):
        return
    with archive.open(name) as file:
        first = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > stored:
        raise UsageError(f"is truncated or damaged: it has {size(stored)}, but its header says {size(claimed)}")
    check_memory("unpacked", stored + (0 if dtype.itemsize == 1 else 4 * math.prod(shape)))


def check_memory(how: str, needed: int) -> None:
    """Rejects data that needs more memory than is available.

    Raises:
        UsageError: reports both sizes.
    """
    if shortage := memory_shortage(needed, how):
        raise UsageError(f"{shortage}; save the array as a .npy file, which is read in parts")


def read_array(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Reads one array of `open_file`.

    Raises:
        UsageError: it cannot be read, or is not an array.
    """
    try:
        array = arrays[name]
    except UsageError as error:
        raise UsageError(f"{name} {error}") from error
    except Exception as error:  # see `open_file`
        raise UsageError(f"{name} {_reason(error)}") from error
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{name} is not an array")
    return array


def _arrays(content: Any) -> dict[str, np.ndarray]:
    """The tensors in a .pt file by name."""
    if isinstance(content, Tensor):
        content = {UNNAMED: content}
    elif isinstance(content, list | tuple):
        content = dict(zip(("data", "targets"), content, strict=True) if _is_pair(content) else enumerate(content))
    named = content.items() if isinstance(content, dict) else ()
    return {str(name): _array(str(name), value) for name, value in named if isinstance(value, Tensor)}


def _is_pair(content: Sequence[Any]) -> bool:
    """Whether a list consists of images and labels, as saved by torchvision."""
    tensors = len(content) == 2 and all(isinstance(part, Tensor) for part in content)
    return tensors and content[0].ndim > content[1].ndim == 1 and len(content[0]) == len(content[1])


def _array(name: str, tensor: Tensor) -> np.ndarray:
    try:
        if tensor.layout == torch.strided and tensor.nbytes > tensor.untyped_storage().nbytes():
            raise UsageError(f"{name or 'its tensor'} is expanded to {size(tensor.nbytes)}; save a contiguous tensor")
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(force=True)
    except (TypeError, RuntimeError) as error:
        kind = f"{tensor.layout} tensor of {tensor.dtype}".replace("torch.", "")
        raise UsageError(f"{name or 'its tensor'} is a {kind}, which is not supported; convert it first") from error


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without the reader's advice, which could execute its content."""
    if isinstance(error, UnpicklingError):
        return "is damaged, or has objects other than tensors or a dict or list of tensors, which are not unpickled"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, ValueError) and re.search("(?i)pickle|python objects", str(error)):
        return "has Python objects, which are not unpickled; save arrays of numbers"
    first = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:MAX_REASON_LENGTH]
    return f"cannot be read and may be truncated or damaged: {type(error).__name__} {first}".rstrip()
