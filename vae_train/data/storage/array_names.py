"""Finds the arrays with images and labels by their names, and interprets labels."""

import logging
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import Factor, Split
from vae_train.data.storage.array_files import read_array
from vae_train.data.storage.listing import SPLIT_NAMES
from vae_train.util.errors import ErrorDetail, UsageError

LABEL_NAMES = ("labels", "label", "y", "targets", "target", "factors", "latents_classes", "classes")
"""Names of arrays with labels, by descending preference."""

MAX_VALUES = 10_000
"""Maximal number of distinct values in a column of labels."""

MAX_LISTED = 12
"""Number of arrays that a message lists."""


log = logging.getLogger("vae_train")


class NotLabels(UsageError):
    """Raised if an array cannot be labels."""


def image_names(arrays: Mapping[str, np.ndarray], key: str | None, labels: str | None = None) -> dict[Split, str]:
    """The name of the array with the images of every split.

    Names such as x_train, test_images or val contain the split. If no name does, all images are in one array, which is
    called "train" here.

    Args:
        arrays: the arrays of a file.
        key: name of the array, or the common part of the names of the splits; None to guess it.
        labels: likewise for the labels.

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
        where, why = ("", "must name the images") if key is None or candidates else (key, "no such array")
        raise UsageError([ErrorDetail(f"data.key={where}", f"{why}; the file has {_listed(arrays)}")])
    return {split: names[0] for split, names in chosen.items()}


def label_name(arrays: Mapping[str, np.ndarray], images: str, key: str | None) -> str | None:
    """The name of the array with the labels of the images called `images`; None if there is none.

    Args:
        arrays: the arrays of a file.
        images: the array with the images.
        key: name of the labels, or the common part of the names of the splits; None to guess it.

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
        what = f"no such array for {images}" if images else "no such array"
        raise UsageError([ErrorDetail(f"data.labels={key}", f"{what}; the file has {_listed(arrays)}")])
    return key if key in matching else matching[0]


def _table(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Reads labels as `(N, F)`; raises NotLabels."""
    try:
        labels = read_array(arrays, name)
    except UsageError as error:
        raise NotLabels(str(error)) from error
    if labels.dtype.kind not in "uibfUS":
        raise NotLabels(f"{name} has the type {labels.dtype}, but labels are numbers or strings")
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
    """Reads the labels of every split as int64 `(N, F)`, and the factors of their columns.

    The values of a column are numbered in ascending order over all splits. One-hot columns are one class label: the
    index of the column.

    Args:
        arrays: the arrays of a file.
        names: split -> name of the array with its labels.
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
            raise NotLabels(f"{len(values):,} distinct labels are too many for classes")
        if classes is not None:  # includes classes without images
            values, numbers[:, 0] = np.arange(widths.pop()), classes[:, 0]
        name = "class" if together.shape[1] == 1 else f"factor {column}"
        factors.append(Factor(name, len(values), tuple(values.tolist())))
    parts = torch.from_numpy(numbers).split([len(labels) for labels in columns.values()])
    return dict(zip(columns, parts, strict=True)), tuple(factors)


def _from_one_hot(labels: np.ndarray) -> np.ndarray | None:
    """The column index `(N, 1)` of the 1 in each row of one-hot labels `(N, F)`; None if they are not one-hot."""
    if labels.dtype.kind == "U" or labels.shape[1] < 2:
        return None
    low, high = labels.min(), labels.max()
    hot = labels == high
    is_one_hot = low < high and (hot.sum(1) == 1).all() and (hot | (labels == low)).all()
    return hot.argmax(1)[:, None] if is_one_hot else None


def _may_be_images(name: str, labels: str | None) -> bool:
    return _base_name(name) not in LABEL_NAMES and not (labels is not None and _matches(labels, name))


def _matches(key: str, name: str) -> bool:
    """Whether `key` equals `name`, apart from a split in either."""
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
