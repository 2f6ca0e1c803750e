"""Arrays by name from .npy, .npz and .pt files, and which of them hold images and labels.

Nothing in a file is executed; arrays are mapped where possible.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import Factor, Split
from vae_train.data.storage.csv_files import read_table
from vae_train.data.storage.decoding import quiet
from vae_train.data.storage.listing import SPLIT_NAMES
from vae_train.util.errors import ErrorDetail, UsageError

UNNAMED = ""
"""The name of a file's only array."""

MAX_REASON_LENGTH = 200
"""Characters of a reader's error that a message repeats."""

CONVERSIONS = {
    ".mat": """from scipy.io import loadmat; import numpy; numpy.save("data.npy", loadmat("{file}")["NAME"])""",
    ".pkl": """import pickle, numpy; numpy.save("data.npy", numpy.asarray(pickle.load(open("{file}", "rb"))))""",
}
"""Files that are not opened, since reading them may run code or needs another library -> how to convert them."""

LABEL_NAMES = ("labels", "label", "y", "targets", "target", "factors", "latents_classes", "classes")
"""Names of arrays with labels, in the order of preference."""

MAX_VALUES = 10_000
"""Different values that a column of labels may have."""

MAX_LISTED = 12
"""Arrays that a message names."""


log = logging.getLogger("vae_train")


class NotLabels(UsageError):
    """An array cannot be labels."""


def open_file(path: str) -> tuple[Mapping[str, np.ndarray], bool]:
    """Opens the arrays of a file by name, and says whether they are mapped into memory.

    Args:
        path: a .npy file (one array, mapped), a .npz file (an array is read when it is asked for), or a .pt file with a
            tensor, or with tensors in a dict or a list (mapped), or a .csv or .tsv file with a table.

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
    with file.open("rb") as start:
        if re.match(rb"\s*<(!doctype|html)", start.read(100), re.IGNORECASE):
            raise UsageError("is an HTML page, despite its name: what was downloaded is a web page and not the file")
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
        with quiet():  # PyTorch's warnings advise what the user cannot do here
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        return _arrays(content), mapped
    if suffix in (".csv", ".tsv"):
        return {UNNAMED: read_table(file)}, False
    if suffix in CONVERSIONS:
        raise UsageError(f"is not supported; convert it in Python: {CONVERSIONS[suffix].format(file=file.name)}")
    raise UsageError("is not a .npy, .npz, .pt or .csv file")


class _Archive(Mapping[str, np.ndarray]):
    """A .npz file, which is open only while an array is read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with np.load(file, allow_pickle=False) as members:
            self._names = list(members.files)

    def __getitem__(self, name: str) -> np.ndarray:
        with np.load(self._file, allow_pickle=False) as members:
            return members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_array(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One array of `open_file`.

    Raises:
        UsageError: it cannot be read, or is not an array.
    """
    try:
        array = arrays[name]
    except Exception as error:  # see `open_file`
        raise UsageError(f"{name} {_reason(error)}") from error
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{name} is not an array")
    return array


def _arrays(content: Any) -> dict[str, np.ndarray]:
    """The tensors that a .pt file holds, by name."""
    if isinstance(content, Tensor):
        content = {UNNAMED: content}
    elif isinstance(content, list | tuple):
        content = dict(zip(("data", "targets"), content, strict=True) if _is_pair(content) else enumerate(content))
    named = content.items() if isinstance(content, dict) else ()
    return {str(name): _array(str(name), value) for name, value in named if isinstance(value, Tensor)}


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


def image_names(arrays: Mapping[str, np.ndarray], key: str | None, labels: str | None = None) -> dict[Split, str]:
    """For every split the name of the array with its images.

    Names such as x_train, test_images or val contain the split. If none does, all images are in one array, which is
    called "train" here.

    Args:
        arrays: the arrays of a file.
        key: the array's name, or what the names of the splits have in common; None to guess it.
        labels: likewise for the labels, which are not images.

    Raises:
        UsageError: no array matches, or several do.
    """
    if key in list(arrays):
        return {"train": key}
    if key is None and len(arrays) == 1:
        return {"train": next(iter(arrays))}
    candidates = [name for name in arrays if (_may_be_images(name, labels) if key is None else _matches(key, name))]
    by_split: dict[Split | None, list[str]] = {}
    for name in candidates:
        by_split.setdefault(_split(name), []).append(name)
    named = {split: names for split, names in by_split.items() if split is not None}
    chosen: dict[Split, list[str]] = named if "train" in named else {"train": candidates}
    if any(len(names) != 1 for names in chosen.values()):
        where, why = ("", "says which are the images") if key is None or candidates else (key, "there is no such array")
        raise UsageError([ErrorDetail(f"data.key={where}", f"{why}: the file has {_listed(arrays)}")])
    return {split: names[0] for split, names in chosen.items()}


def label_name(arrays: Mapping[str, np.ndarray], images: str, key: str | None) -> str | None:
    """The array with the labels of the images called `images`; None if there is none.

    Args:
        arrays: the arrays of a file.
        images: the array with the images.
        key: the labels' name, or what the names of the splits have in common; None to guess it.

    Raises:
        UsageError: there is no array called `key`.
    """
    split = _split(images)
    candidates = [name for name in arrays if name != images and split in (None, _split(name))]
    if key is None:
        guessed = [name for name in candidates if _base_name(name) in LABEL_NAMES and _split(name) == split]
        return min(guessed, key=lambda name: LABEL_NAMES.index(_base_name(name)), default=None)
    matching = [name for name in candidates if name == key or (_split(name) == split and _matches(key, name))]
    if not matching:
        what = f"there is no such array for {images}" if images else "there is no such array"
        raise UsageError([ErrorDetail(f"data.labels={key}", f"{what}: the file has {_listed(arrays)}")])
    return key if key in matching else matching[0]


def _table(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Reads labels as `(N, F)`; raises NotLabels."""
    try:
        labels = read_array(arrays, name)
    except UsageError as error:
        raise NotLabels(str(error)) from error
    if labels.dtype.kind not in "uibfUS":
        raise NotLabels(f"{name} holds {labels.dtype}, but labels are numbers or text")
    if labels.ndim not in (1, 2) or not labels.size:
        raise NotLabels(f"{name} has shape {labels.shape}, but labels are (N,) or (N, F)")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise NotLabels(f"{name} has labels that are NaN")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    return labels.reshape(len(labels), -1)


def read_labels(
    arrays: Mapping[str, np.ndarray], names: Mapping[Split, str], images: Mapping[Split, np.ndarray]
) -> tuple[dict[Split, Tensor], tuple[Factor, ...]]:
    """Reads the labels of every split as int64 `(N, F)`, and what their columns are.

    The values of a column are numbered in ascending order over all splits. One-hot columns are one class label, the
    number of the column.

    Args:
        arrays: the arrays of a file.
        names: for every split the name of the array with its labels.
        images: the images that they belong to.

    Raises:
        NotLabels: an array cannot be labels.
        UsageError: there are more or fewer labels than images.
    """
    columns = {split: _table(arrays, name) for split, name in names.items()}
    for split, labels in columns.items():
        if len(labels) != len(images[split]):
            counts = f"{len(images[split]):,} {split} images and {len(labels):,} labels"
            raise UsageError(f"has {counts} in {names[split]}")
    widths = {labels.shape[1] for labels in columns.values()}
    if len(widths) > 1 or len({labels.dtype.kind == "U" for labels in columns.values()}) > 1:
        raise NotLabels("the labels of the splits differ in type or number of columns")
    together = np.concatenate(list(columns.values()))
    if (classes := _from_one_hot(together)) is not None:
        log.info("labels: %d one-hot columns are one class label", together.shape[1])
        together = classes
    numbers, factors = np.empty(together.shape, np.int64), []
    for column in range(together.shape[1]):
        values, numbers[:, column] = np.unique(together[:, column], return_inverse=True)
        if len(values) > MAX_VALUES:
            raise NotLabels(f"there are {len(values):,} different labels, too many for classes")
        if classes is not None:  # a class without images is one, too
            values, numbers[:, 0] = np.arange(widths.pop()), classes[:, 0]
        name = "class" if together.shape[1] == 1 else f"factor {column}"
        factors.append(Factor(name, len(values), tuple(values.tolist())))
    parts = torch.from_numpy(numbers).split([len(labels) for labels in columns.values()])
    return dict(zip(columns, parts, strict=True)), tuple(factors)


def _from_one_hot(labels: np.ndarray) -> np.ndarray | None:
    """The column `(N, 1)` that has the larger of two values in each row of `(N, F)`; None if the labels are no such."""
    if labels.dtype.kind == "U" or labels.shape[1] < 2:
        return None
    low, high = labels.min(), labels.max()
    hot = labels == high
    is_one_hot = low < high and (hot.sum(1) == 1).all() and (hot | (labels == low)).all()
    return hot.argmax(1)[:, None] if is_one_hot else None


def _may_be_images(name: str, labels: str | None) -> bool:
    return _base_name(name) not in LABEL_NAMES and not (labels is not None and _matches(labels, name))


def _matches(key: str, name: str) -> bool:
    """Whether `key` is `name`, or the same name with another split or none."""
    return key == name or _base_name(key) == _base_name(name)


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    names = [name or "one array without a name" for name in arrays]
    return ", ".join([*names[:MAX_LISTED], *(["…"] if len(names) > MAX_LISTED else [])]) or "no arrays"


def _split(name: str) -> Split | None:
    """The split that `name` contains."""
    return next((SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES), None)


def _base_name(name: str) -> str:
    """`name` without its split, in lower case."""
    if _split(name) is None:
        return name.lower()
    return "_".join(word for word in _words(name) if word not in SPLIT_NAMES)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
