"""A source of images, signals or vectors in an array file."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from torch import Tensor
from typing_extensions import override

from vae_train.batch import SPLITS, DataFacts, Factor, Layout, Shape, Split, Units
from vae_train.data.sources.base import Contents, Source
from vae_train.data.storage.array_files import open_file, read_array
from vae_train.data.storage.array_names import NotLabels, image_names, label_name, read_labels
from vae_train.data.storage.columns import AXES, column_shape, column_units
from vae_train.data.storage.layouts import image_shape
from vae_train.data.storage.missing import check_missing
from vae_train.data.storage.stored import ArrayStore, StoredImages, cut
from vae_train.data.storage.value_checks import Values, check_kinds, measured, prefix
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import Fraction, PositiveInt, Seed

MAX_LEVELS = 2**24
"""Maximal number of levels that float32 can represent."""

log = logging.getLogger("vae_train")


class _Inspection(NamedTuple):
    """The result of inspecting a file, before its pixels are read."""

    images: dict[Split, np.ndarray]
    """The arrays with images, by the split in their names."""
    mapped: bool
    layout: Layout
    shape: Shape
    values: Values
    labels: dict[Split, Tensor] | None
    """(N, F) int64 of every array in `images`."""
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class ArrayFile(Source):
    """The arrays of a .npy, .npz or .pt file, or the table of a .csv file.

    Images are (N, C, H, W), (N, H, W, C) or (N, H, W). Signals (N, C, T) or (N, T, C) become (C, 1, T), and vectors
    (N, D) become (1, 1, D). Integers of images are levels, and their floating-point numbers are mapped from `range`
    to [0, 1]. Vectors and signals are continuous, and every column or channel has its own `Units`. Densities
    are reported for the values in the file. A .npy file may be larger than memory, since it is mapped.

    Args:
        path: the file.
        key: name of the array with the images in a .npz or .pt file, if it cannot be guessed. Names that contain train,
            valid (or val) and test define the splits.
        labels: name of the array with labels (N,) or factors of variation (N, F); None to guess it.
        layout: the order of the dimensions; None to infer it from the shape.
        levels: number of values of a pixel; None infers it for images of integers, see
            `vae_train.data.storage.levels.inferred_levels`, and means continuous otherwise. Levels may be multiples of
            a number, such as 0, 17, …, 255 for 16 levels.
        range: the smallest and largest possible values, which are mapped to 0 and 1; None to measure them, in files up
            to 1 GiB, or for units per column.
        scaling: how columns of vectors and channels of signals are scaled: "standard", to mean 0 and standard deviation
            1 of the training images, or "range", to [0, 1]; None for what the likelihood needs.
        missing: how NaN are treated: "error" rejects them; "mask" leaves them out of units and
            likelihood, and the model sees 0 instead ("MIWAE: Deep Generative Modelling and Imputation of
            Incomplete Data Sets", arXiv:1812.02633).
        shape: (C, H, W), filled in by inspection.
        units: the units of a run's training data, filled in when the run is opened.
        binarize: see `vae_train.data.sources.base.Binarize`.
        valid: fraction of the images for validation, if the file has no such split.
        test: fraction of the images for testing, likewise.
        split_seed: seed of the random split.
    """

    path: str | None
    key: str | None
    labels: str | None
    layout: Layout | None
    levels: PositiveInt | None
    range: list[float] | None
    scaling: Literal["standard", "range"] | None
    missing: Literal["error", "mask"]
    shape: list[PositiveInt] | None
    units: dict[str, Any] | None
    binarize: Literal["none", "dynamic"]
    valid: Fraction
    test: Fraction
    split_seed: Seed
    max_scanned_bytes: ClassVar[int] = 2**30
    """Larger files are only checked at evenly spaced images."""

    def __post_init__(self) -> None:
        if self.valid + self.test >= 1:
            raise ValueError(f"valid={self.valid:g} and test={self.test:g} leave no images for training")
        if self.range is not None and (len(self.range) != 2 or not -np.inf < self.range[0] < self.range[1] < np.inf):
            raise ValueError(f"range={list(self.range)} is not [smallest, largest]")
        if self.levels is not None and not 2 <= self.levels <= MAX_LEVELS:
            raise ValueError(
                f"levels={self.levels}: must be 2 to {MAX_LEVELS:,}; use data.range= for continuous numbers"
            )
        if self.shape is not None and len(self.shape) != 3:
            raise ValueError(f"shape={list(self.shape)} is not [channels, height, width]")
        if self.units is not None:
            Units.parse(self.units)

    @override
    def inspect(self) -> DataFacts:
        inspection, values = self._inspection, self._inspection.values
        shape, layout = inspection.shape, inspection.layout
        levels = 2 if self.binarize == "dynamic" else values.levels
        has_units = levels is None or (layout in AXES and self.binarize == "none")
        units = values.units if has_units else None
        rows = self._rows(inspection.images)["train"]
        return DataFacts(shape, levels, len(rows), inspection.factors, units, layout, self.missing == "mask")

    @override
    def resolved(self) -> dict[str, Any]:
        _, _, layout, shape, (levels, units, *_), *_ = self._inspection
        bounds = [*units.low, *units.high] if units.shape == () else self.range
        return {"layout": layout, "levels": levels, "range": bounds, "scaling": self.scaling, "shape": list(shape),
                "units": None}  # fmt: skip

    @override
    def read(self) -> Contents:
        rows = self._rows(self._inspection.images)
        splits = {name: self._images(self._inspection, name, own) for name, own in rows.items() if len(own)}
        return Contents(splits, notes=self._inspection.values.notes)

    @cached_property
    def _inspection(self) -> _Inspection:
        """Opens the file, and scans its values if levels or range are null."""
        if self.path is None:
            raise UsageError([ErrorDetail("data.path=", "is needed: a .npy, .npz, .pt or .csv file")])
        arrays, mapped = open_file(self.path)
        names = image_names(arrays, _text(self.key), _text(self.labels))
        images = {split: read_array(arrays, name) for split, name in names.items()}
        check_kinds({names[split]: array for split, array in images.items()})
        layout = self.layout or _layout(images["train"])  # type: ignore[arg-type]
        shapes = {names[split]: _shape(names[split], array, layout) for split, array in images.items()}
        shape = shapes[names["train"]]
        for name, other in shapes.items():
            if other != shape:
                raise UsageError(f"has images of shape {shape} for training, but {other} in {name}")
        if self.shape is not None and shape != tuple(self.shape):
            raise UsageError([ErrorDetail(f"data.shape={list(self.shape)}", f"the file has images of shape {shape}")])
        check_missing(list(images.values()), self.missing == "mask", self.max_scanned_bytes)
        values = self._values(images, layout)
        labels, factors = self._labels(arrays, names, images)
        return _Inspection(images, mapped, layout, shape, values, labels, factors)

    def _values(self, images: dict[Split, np.ndarray], layout: Layout) -> Values:
        """The meaning of the values: units per column, or levels or a range for all."""
        integers = images["train"].dtype.kind in "ui"
        by_column = layout in AXES and (integers or images["train"].dtype.kind == "f")
        known = None if self.units is None else Units.parse(self.units)
        continuous = self.levels is None and self.binarize == "none"
        if by_column and continuous and self.range is None:
            if integers and known is None:
                log.info("integers are treated as continuous values; for discrete levels set data.levels=")
            rows = self._rows(images)["train"]
            ranged = self.scaling == "range"
            return Values(None, column_units(images, rows, layout, ranged, known, self.max_scanned_bytes))
        if known is not None and continuous:
            return Values(None, known)
        bounds = None if self.range is None else (float(self.range[0]), float(self.range[1]))
        values = measured(list(images.values()), self.levels, bounds, self.max_scanned_bytes)
        if by_column and continuous:
            values = values._replace(units=values.units.repeated(column_shape(images["train"], layout)))
        return values

    def _rows(self, images: Mapping[Split, np.ndarray]) -> dict[Split, np.ndarray]:
        """Indices of the images of every split, each within its own array."""
        rows = {name: np.arange(len(images.get(name, ()))) for name in SPLITS}
        return cut(rows, {"valid": self.valid, "test": self.test}, self.split_seed)

    def _images(self, inspection: _Inspection, name: Split, rows: np.ndarray) -> StoredImages:
        """The images of one split."""
        source: Split = name if name in inspection.images else "train"
        array = inspection.images[source]
        labels = None if inspection.labels is None else inspection.labels[source][rows]
        levels, units, plain, _ = inspection.values
        steps = 1 if levels is None else levels - 1  # levels are stored as 0 to levels - 1
        units = units._replace(scale=tuple(scale / steps for scale in units.scale))
        chosen = None if len(rows) == len(array) else rows
        in_bytes = not plain and levels is not None and levels <= 256 and array.dtype.kind != "f"
        store = ArrayStore(array, chosen, inspection.layout, inspection.mapped, None if plain else units, in_bytes)
        return StoredImages(store, levels, labels, self.binarize == "dynamic")

    def _labels(
        self, arrays: Mapping[str, np.ndarray], names: Mapping[Split, str], images: Mapping[Split, np.ndarray]
    ) -> tuple[dict[Split, Tensor] | None, tuple[Factor, ...]]:
        """The labels of the images of every array as int64 `(N, F)`, and their factors."""
        found = {split: label_name(arrays, name, _text(self.labels)) for split, name in names.items()}
        keys = {split: key for split, key in found.items() if key is not None}
        keys = keys if len(keys) == len(names) else {}  # labels of all splits or none
        if unused := [name for name in arrays if name not in {*names.values(), *keys.values()}]:
            log.info("unused arrays: %s; data.key= and data.labels= choose others", ", ".join(unused))
        if not keys:
            return None, ()
        try:
            return read_labels(arrays, keys, images)
        except NotLabels as error:
            if self.labels is not None:
                raise UsageError([ErrorDetail(f"data.labels={self.labels}", str(error))]) from error
            log.warning("no labels: %s", error)
            return None, ()


def _text(name: str | None) -> str | None:
    """A name as a string, since YAML reads `key=1` as a number."""
    return None if name is None else str(name)


def _shape(name: str, array: np.ndarray, layout: Layout) -> Shape:
    """(C, H, W) of the images of the array called `name`."""
    if array.ndim != len(layout):
        what = f"{prefix(name)}has shape {array.shape}: {layout} has {len(layout)} dimensions"
        raise UsageError([ErrorDetail(f"data.layout={layout}", what)])
    return image_shape(array.shape, layout)


def _layout(array: np.ndarray) -> Layout:
    """The only layout that an array of this shape can have."""
    sizes = array.shape[1:]
    if len(sizes) == 1:
        return "ND"
    if len(sizes) == 2 and 4 * sizes[0] < sizes[1]:
        log.info("%s: taken as signals (N, C, T) with %d channels; otherwise set data.layout=", array.shape, sizes[0])
        return "NCT"
    if len(sizes) == 2:
        has_levels = array.dtype in (np.bool_, np.uint8, np.uint16)
        if sizes[0] <= 4 * sizes[1] and (has_levels or sizes[0] == sizes[1]):
            if not has_levels:
                log.info("%s: taken as grey images (N, H, W); for signals set data.layout=NTC or NCT", array.shape)
            return "NHW"
        what = f"is needed: {array.shape} may be grey images (NHW) or signals (NTC or NCT)"
        raise UsageError([ErrorDetail("data.layout=", what)])
    if len(sizes) == 3 and (sizes[0] <= 4) != (sizes[2] <= 4):
        return "NCHW" if sizes[0] <= 4 else "NHWC"
    if len(sizes) == 3:
        raise UsageError([ErrorDetail("data.layout=", f"is needed: {array.shape} may be NCHW or NHWC")])
    raise UsageError(f"has shape {array.shape}: images are NCHW, NHWC or NHW, signals NCT or NTC, vectors ND")
