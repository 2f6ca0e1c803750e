"""Images, signals or vectors in an array file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import SPLITS, Factor, Shape
from vae_train.data.dataset import Dataset
from vae_train.data.storage.files import name_of_labels, names_of_images, open_file
from vae_train.data.storage.labels import Unfit, numbered, table
from vae_train.data.storage.numbers import check_grid, check_kinds, check_precision, extremes, rounded, said
from vae_train.data.storage.splits import cut
from vae_train.data.storage.stored import LAYOUTS, ArrayImages, Hosted
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import Fraction, PositiveInt, Seed

LARGE = 2**30
"""Bytes from which on a file is looked at in some places only."""

MOST_LEVELS = 2**24
"""Levels that float32 tells apart."""

log = logging.getLogger("vae_train")


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
        binarize: see `vae_train.data.sources.digits.Digits`.
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
        if range is not None and (len(range) != 2 or not -np.inf < range[0] < range[1] < np.inf):
            raise ValueError(f"range={list(range)} is not [smallest, largest]")
        if levels is not None and not 2 <= levels <= MOST_LEVELS:
            raise ValueError(
                f"levels={levels}: give 2 to {MOST_LEVELS:,}, or data.range= for numbers that are no levels"
            )
        if shape is not None and len(shape) != 3:
            raise ValueError(f"shape={list(shape)} is not [channels, height, width]")
        self.path, self.layout = path, layout
        self.key, self.label_key = None if key is None else str(key), None if labels is None else str(labels)
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
            raise UsageError([ErrorDetail("data.path=", "is needed: a .npy, .npz or .pt file")])
        arrays, self._mapped = open_file(self.path)
        self._names = names_of_images(arrays, self.key, self.label_key)
        images = {name: arrays[name] for name in self._names.values()}
        check_kinds(images)
        self.layout = self.layout or _layout(arrays[self._names["train"]])
        shapes = {name: self._shape(name, array) for name, array in images.items()}
        for name, shape in shapes.items():
            if shape != shapes[self._names["train"]]:
                raise UsageError(f"has images of {shapes[self._names['train']]} for training and of {shape} in {name}")
        if (found := shapes[self._names["train"]]) != getattr(self, "shape", found):
            raise UsageError([ErrorDetail(f"data.shape={list(self.shape)}", f"the file has images of {found}")])
        self.shape, self._arrays = found, arrays
        self._measure(list(images.values()))
        self.levels = 2 if self.binarize == "dynamic" else self.stored_levels
        self.num_train = len(self._rows()["train"])
        return self

    @override
    def inferred(self) -> dict[str, Any]:
        found = None if self.bounds is None else list(self.bounds)
        return {"layout": self.layout, "levels": self.stored_levels, "range": found, "shape": list(self.shape)}

    @override
    def read(self) -> dict[str, ArrayImages | None]:
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

    def _shape(self, name: str, array: np.ndarray) -> Shape:
        """(C, H, W) of the images of an array."""
        assert self.layout is not None
        if array.ndim != len(self.layout):
            what = f"{said(name)}has shape {array.shape}: {self.layout} has {len(self.layout)} dimensions"
            raise UsageError([ErrorDetail(f"data.layout={self.layout}", what)])
        return LAYOUTS[self.layout].shape(array.shape[1:])

    def _measure(self, arrays: list[np.ndarray]) -> None:
        """Finds levels and range, or checks them."""
        whole = sum(array.nbytes for array in arrays) <= LARGE
        low, high = extremes(arrays, whole)
        integers = arrays[0].dtype.kind in "uib"
        if self.bounds is None and integers:
            self._measure_levels(low, high, arrays[0].dtype, whole)
        elif self.bounds is None:
            self.bounds = self._found_range(low, high, whole)
        assert self.bounds is not None
        smallest, largest = self.bounds if integers else rounded(self.bounds, arrays)
        if low < smallest or high > largest:
            raise UsageError(f"holds numbers from {low:g} to {high:g}, outside of data.range={list(self.bounds)}")
        check_precision(*self.bounds)
        if self.stored_levels is not None and not (integers and self.bounds == (0, self.stored_levels - 1)):
            check_grid(arrays, whole, self.stored_levels, self.bounds)

    def _measure_levels(self, low: float, high: float, dtype: np.dtype, whole: bool) -> None:
        """Integers are levels from 0 on."""
        if low < 0:
            raise UsageError(f"holds integers from {low:.0f} to {high:.0f}: say what they are with data.range=")
        if self.stored_levels is None:
            found = next((2**bits for bits in (1, 8, 16) if high < 2**bits), None)
            if found is None:
                raise UsageError(f"holds integers up to {high:.0f}: say how many there are with data.levels=")
            if not whole and found != {"bool": 2, "uint8": 256, "uint16": 65536}.get(dtype.name):
                what = f"is needed: integers up to {high:.0f} were found, and the file is too large to look at all"
                raise UsageError([ErrorDetail("data.levels=", what)])
            self.stored_levels = found
        if high >= self.stored_levels:
            what = f"the file holds integers up to {high:.0f}, which are at least {high + 1:.0f} levels"
            raise UsageError([ErrorDetail(f"data.levels={self.stored_levels}", what)])
        self.bounds = (0.0, float(self.stored_levels - 1))

    def _found_range(self, low: float, high: float, whole: bool) -> tuple[float, float]:
        """The range of floating-point numbers that nobody states."""
        if self.stored_levels is not None:
            what = "is needed: it says which floating-point numbers the first and the last level are"
            raise UsageError([ErrorDetail("data.range=", what)])
        if not whole:
            raise UsageError([ErrorDetail("data.range=", "is needed: the file is too large to look for its extremes")])
        if low == high:
            raise UsageError(f"holds the number {low:g} alone: if that is meant, say data.range=[smallest,largest]")
        return low, high

    def _labels(self, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor] | None, tuple[Factor, ...]]:
        """The labels of the images of every array as int64 `(N, F)`, and what their columns are."""
        keys = {split: name_of_labels(arrays, name, self.label_key) for split, name in self._names.items()}
        if any(key is None for key in keys.values()):
            return None, ()
        try:
            columns = {split: table(arrays, str(key)) for split, key in keys.items()}
            for split, found in columns.items():
                count = len(arrays[self._names[split]])
                if len(found) != count:
                    raise UsageError(f"has {count:,} {split} images and {len(found):,} labels in {keys[split]}")
            return numbered(columns)
        except Unfit as error:
            if self.label_key is not None:
                raise UsageError([ErrorDetail(f"data.labels={self.label_key}", str(error))]) from error
            log.warning("no labels: %s", error)
            return None, ()


def _layout(array: np.ndarray) -> Literal["NCHW", "NHWC", "NHW", "NCT", "ND"]:
    """What the dimensions of an array must be."""
    sizes = array.shape[1:]
    if len(sizes) == 1:
        return "ND"
    if len(sizes) == 2 and sizes[0] <= 4 * sizes[1]:
        return "NCT" if 4 * sizes[0] < sizes[1] else "NHW"
    if len(sizes) == 2:
        what = f"is needed: {array.shape} may be images, NHW, or signals (N, T, C), which want to be saved as (N, C, T)"
        raise UsageError([ErrorDetail("data.layout=", what)])
    if len(sizes) == 3 and (sizes[0] <= 4) != (sizes[2] <= 4):
        return "NCHW" if sizes[0] <= 4 else "NHWC"
    if len(sizes) == 3:
        raise UsageError([ErrorDetail("data.layout=", f"is needed: {array.shape} may be NCHW or NHWC")])
    raise UsageError(f"has shape {array.shape}: images are NCHW, NHWC or NHW, signals NCT, vectors ND")
