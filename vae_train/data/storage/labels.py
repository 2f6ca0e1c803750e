"""Labels and factors of variation as class numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import Factor
from vae_train.util.errors import UsageError

MOST_VALUES = 10_000
"""Different values that a column of labels may have."""


class Unfit(UsageError):
    """Arrays that are no labels."""


def table(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Labels as `(N, F)`."""
    try:
        labels = arrays[name]
    except UsageError as error:
        raise Unfit(str(error)) from error
    if labels.dtype.kind not in "uibfUS":
        raise Unfit(f"{name} holds {labels.dtype}, and labels are numbers or texts")
    if labels.ndim not in (1, 2) or not labels.size:
        raise Unfit(f"{name} has shape {labels.shape}, and labels are (N,) or (N, F)")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise Unfit(f"{name} has labels that are NaN")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    return labels.reshape(len(labels), -1)


def numbered(columns: dict[str, np.ndarray]) -> tuple[dict[str, Tensor], tuple[Factor, ...]]:
    """The values of every column numbered in ascending order, over all splits, and what the numbers stand for."""
    widths = {found.shape[1] for found in columns.values()}
    if len(widths) > 1 or len({found.dtype.kind == "U" for found in columns.values()}) > 1:
        raise Unfit("the splits have labels that are not alike")
    together = np.concatenate(list(columns.values()))
    numbers, factors = np.empty(together.shape, np.int64), []
    for column in range(together.shape[1]):
        values, numbers[:, column] = np.unique(together[:, column], return_inverse=True)
        if len(values) > MOST_VALUES:
            raise Unfit(f"there are {len(values):,} different labels, which are no classes")
        name = "class" if together.shape[1] == 1 else f"factor {column}"
        factors.append(Factor(name, len(values), tuple(values.tolist())))
    ends = np.cumsum([len(found) for found in columns.values()])
    parts = np.split(numbers, ends[:-1])
    return dict(zip(columns, map(torch.from_numpy, parts), strict=True)), tuple(factors)
