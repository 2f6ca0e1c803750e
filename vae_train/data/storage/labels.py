"""Labels and factors of variation as class numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import Factor, Split
from vae_train.util.errors import UsageError

MAX_VALUES = 10_000
"""Different values that a column of labels may have."""


class NotLabels(UsageError):
    """An array cannot be labels."""


def table(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Reads labels as `(N, F)`.

    Raises:
        NotLabels: says why the array cannot be labels.
    """
    try:
        labels = arrays[name]
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


def numbered(columns: dict[Split, np.ndarray]) -> tuple[dict[Split, Tensor], tuple[Factor, ...]]:
    """Numbers the values of every column in ascending order over all splits; the factors say what they stand for."""
    widths = {labels.shape[1] for labels in columns.values()}
    if len(widths) > 1 or len({labels.dtype.kind == "U" for labels in columns.values()}) > 1:
        raise NotLabels("the labels of the splits differ in type or number of columns")
    together = np.concatenate(list(columns.values()))
    numbers, factors = np.empty(together.shape, np.int64), []
    for column in range(together.shape[1]):
        values, numbers[:, column] = np.unique(together[:, column], return_inverse=True)
        if len(values) > MAX_VALUES:
            raise NotLabels(f"there are {len(values):,} different labels, too many for classes")
        name = "class" if together.shape[1] == 1 else f"factor {column}"
        factors.append(Factor(name, len(values), tuple(values.tolist())))
    ends = np.cumsum([len(labels) for labels in columns.values()])
    parts = np.split(numbers, ends[:-1])
    return dict(zip(columns, map(torch.from_numpy, parts), strict=True)), tuple(factors)
