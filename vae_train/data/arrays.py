"""Images, signals or vectors in an array file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vae_train.data.base import SPLITS, Dataset, Factor
from vae_train.data.pipeline.files import name_of_labels, names_of_images, open_file
from vae_train.data.pipeline.splits import cut
from vae_train.data.pipeline.stored import CHUNK, LAYOUTS, ArrayImages, Hosted
from vae_train.errors import Mistake, UsageError
from vae_train.ranges import Fraction, PositiveInt, Seed

LARGE = 2**30
"""Bytes from which on a file is looked at in some places only."""

MOST_VALUES = 10_000
"""Different values that a column of labels may have."""


class ArrayFile(Dataset):
    """The arrays of a .npy, .npz or .pt file.

    Images are (N, C, H, W), (N, H, W, C) or (N, H, W); signals (N, C, T) become (C, 1, T) and vectors (N, D) become
    (1, 1, D). Integers are levels; floating-point numbers are continuous and are mapped from `range` to [0, 1], with
    figures that stay those of the numbers in the file. A .npy file that is larger than memory is mapped.

    Args:
        path: the file.
        key: name of the array with the images in a .npz or .pt file, where it cannot be guessed. Names with train,
            valid (or val) and test in them are the splits.
        labels: name of the array with labels (N,) or factors of variation (N, F); None where it can be guessed.
        layout: what the dimensions are; None where that can be seen.
        levels: number of values of a pixel; None for what integers say, and for none of floating-point numbers.
        range: the smallest and the largest number that there can be; None for what is found, in files up to 1 GiB.
        shape: (C, H, W), as it is found in the file.
        binarize: see `vae_train.data.digits.Digits`.
        valid: share of the images that validate, where the file does not say which.
        test: likewise for the test split.
        split_seed: decides which images these are.
    """

    def __init__(
        self,
        path: str | None,
        key: str | None,
        labels: str | None,
        layout: Literal["NCHW", "NHWC", "NHW", "NCT", "ND"] | None,
        levels: PositiveInt | None,
        range: list[float] | None,
        shape: list[PositiveInt] | None,
        binarize: Literal["none", "dynamic"],
        valid: Fraction,
        test: Fraction,
        split_seed: Seed,
    ) -> None:
        super().__init__()
        if valid + test >= 1:
            raise ValueError(f"valid={valid:g} and test={test:g} leave nothing to train on")
        if range is not None and (len(range) != 2 or not range[0] < range[1]):
            raise ValueError(f"range={list(range)} is not [smallest, largest]")
        if levels is not None and levels < 2:
            raise ValueError("levels=1 leaves nothing to tell apart")
        self.path, self.key, self.label_key, self.layout = path, key, labels, layout
        self.stored_levels, self.binarize = levels, binarize
        self.bounds = None if range is None else (float(range[0]), float(range[1]))
        self.shares, self.split_seed, self.classes = {"valid": valid, "test": test}, split_seed, None
        self.levels = 2 if binarize == "dynamic" else levels
        if shape is not None:
            self.shape = tuple(shape)
        self._arrays: Mapping[str, np.ndarray] | None = None
        self._names: dict[str, str] = {}
        self._mapped = False

    def inspect(self) -> Dataset:
        """See `Dataset.inspect`: looks at shapes and types, and at the numbers where levels or range are left open."""
        if self.path is None:
            raise UsageError([Mistake("data.path=", "is needed: a .npy, .npz or .pt file")])
        arrays, self._mapped = open_file(self.path)
        self._arrays = arrays
        self._names = names_of_images(arrays, self.key)
        train = arrays[self._names["train"]]
        self.layout = self.layout or _layout(train)
        if train.ndim != len(self.layout):
            raise UsageError(f"has shape {train.shape}, which is not layout={self.layout}")
        self.shape = LAYOUTS[self.layout].shape(train.shape[1:])
        if min(train.shape) < 1:
            raise UsageError(f"has shape {train.shape}: there is nothing in it")
        self._measure([arrays[name] for name in self._names.values()])
        self.levels = 2 if self.binarize == "dynamic" else self.stored_levels
        self.num_train = len(self._rows()["train"])
        return self

    def inferred(self) -> dict[str, Any]:
        """See `Dataset.inferred`."""
        found = None if self.bounds is None else list(self.bounds)
        return {"layout": self.layout, "levels": self.stored_levels, "range": found, "shape": list(self.shape)}

    def read(self) -> dict[str, ArrayImages | None]:
        """See `Dataset.read`."""
        if self._arrays is None:
            self.inspect()
        assert self.layout is not None
        assert self._arrays is not None
        labels, self.factors = self._labels(self._arrays)
        self.classes = self.factors[0].size if len(self.factors) == 1 else None
        splits: dict[str, ArrayImages | None] = {}
        for name, rows in self._rows().items():
            source = name if name in self._names else "train"
            array = self._arrays[self._names[source]]
            y = None if labels is None else labels[source][torch.from_numpy(rows)]
            images = ArrayImages(
                Hosted(array, None if len(rows) == len(array) else rows, self.layout, self._mapped),
                self.stored_levels, y, self.binarize == "dynamic", self.bounds,
            )  # fmt: skip
            splits[name] = images if len(rows) else None
        return splits

    def _rows(self) -> dict[str, np.ndarray]:
        """Numbers of the images of every split, each within its own array."""
        assert self._arrays is not None
        lengths = {name: len(self._arrays[key]) for name, key in self._names.items()}
        return cut({name: np.arange(lengths.get(name, 0)) for name in SPLITS}, self.shares, self.split_seed)

    def _measure(self, arrays: list[np.ndarray]) -> None:
        """Finds levels and range, or checks them."""
        whole = sum(array.nbytes for array in arrays) <= LARGE
        low, high = _extremes(arrays, whole)
        integers = arrays[0].dtype.kind in "uib"
        if integers:
            self._measure_levels(low, high)
        elif self.bounds is None and not whole:
            raise UsageError([Mistake("data.range=", "is needed: the file is too large to look for its extremes")])
        elif self.bounds is None and low == high:
            raise UsageError(f"holds the number {low:g} alone")
        self.bounds = self.bounds or (low, high)
        if low < self.bounds[0] or high > self.bounds[1]:
            raise UsageError(f"holds numbers from {low:g} to {high:g}, outside of data.range={list(self.bounds)}")

    def _measure_levels(self, low: float, high: float) -> None:
        """Integers are levels from 0 on."""
        if self.bounds is not None:
            return  # somebody wants them to be numbers
        if low < 0:
            raise UsageError(f"holds integers from {low:g} to {high:g}: say what they are with data.range=")
        if self.stored_levels is None:
            self.stored_levels = next((2**bits for bits in (1, 8, 16) if high < 2**bits), None)
        if self.stored_levels is None or high >= self.stored_levels:
            raise UsageError(f"holds integers up to {high:g}: say how many there are with data.levels=")
        self.bounds = (0.0, float(self.stored_levels - 1))

    def _labels(self, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor] | None, tuple[Factor, ...]]:
        """The labels of the images of every array as int64 `(N, F)`, and what their columns are."""
        keys = {split: name_of_labels(arrays, name, self.label_key) for split, name in self._names.items()}
        if any(key is None for key in keys.values()):
            return None, ()
        columns = {split: _table(arrays[str(key)]) for split, key in keys.items()}
        for split, found in columns.items():
            count = len(arrays[self._names[split]])
            if len(found) != count:
                raise UsageError(f"has {count:,} {split} images and {len(found):,} labels in {keys[split]}")
        together = np.concatenate(list(columns.values()))
        numbers, factors = np.empty(together.shape, np.int64), []
        for column in range(together.shape[1]):
            values, numbers[:, column] = np.unique(together[:, column], return_inverse=True)
            if len(values) > MOST_VALUES:
                raise UsageError(f"has {len(values):,} different labels: these are no classes")
            name = "class" if together.shape[1] == 1 else f"factor {column}"
            factors.append(Factor(name, len(values), tuple(values.tolist())))
        ends = np.cumsum([len(found) for found in columns.values()])
        parts = np.split(numbers, ends[:-1])
        return dict(zip(columns, map(torch.from_numpy, parts), strict=True)), tuple(factors)


def _table(labels: np.ndarray) -> np.ndarray:
    """Labels as `(N, F)`."""
    return labels.reshape(len(labels), -1)


def _layout(array: np.ndarray) -> Literal["NCHW", "NHWC", "NHW", "NCT", "ND"]:
    """What the dimensions of an array must be."""
    sizes = array.shape[1:]
    if len(sizes) == 1:
        return "ND"
    if len(sizes) == 2:
        return "NCT" if 4 * sizes[0] < sizes[1] else "NHW"
    if len(sizes) == 3 and (sizes[0] <= 4) != (sizes[2] <= 4):
        return "NCHW" if sizes[0] <= 4 else "NHWC"
    if len(sizes) == 3:
        raise UsageError([Mistake("data.layout=", f"is needed: {array.shape} may be NCHW or NHWC")])
    raise UsageError(f"has shape {array.shape}: images are NCHW, NHWC or NHW, signals NCT, vectors ND")


def _extremes(arrays: list[np.ndarray], whole: bool) -> tuple[float, float]:
    """The smallest and the largest number; of a large file those of some images that are spread over it.

    Raises:
        UsageError: there are no numbers, or some are NaN or infinite.
    """
    lows, highs = [], []
    for array in arrays:
        if array.dtype.kind not in "uibf":
            raise UsageError(f"holds {array.dtype} and no numbers that images are made of")
        for part in _chunks(array, whole):
            low, high = float(part.min()), float(part.max())
            if not np.isfinite(low + high):
                raise UsageError("holds numbers that are NaN or infinite")
            lows.append(low)
            highs.append(high)
    return min(lows), max(highs)


def _chunks(array: np.ndarray, whole: bool) -> Iterator[np.ndarray]:
    if not whole:
        yield from (array[number] for number in np.unique(np.linspace(0, len(array) - 1, 1024).astype(np.int64)))
        return
    count = max(1, CHUNK * len(array) // max(array.nbytes, 1))
    for start in range(0, len(array), count):
        yield array[start : start + count]
