"""An array file as the input of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vae_train.batch import DataFacts, Layout
from vae_train.data.dataset import TransformedImages
from vae_train.data.storage.array_files import open_file, read_array
from vae_train.data.storage.array_names import image_names, label_name
from vae_train.data.storage.layouts import file_shape
from vae_train.data.storage.missing import check_missing
from vae_train.data.storage.rescaled import RescaledStore
from vae_train.data.storage.stored import ArrayStore, StoredImages
from vae_train.data.storage.value_checks import check_kinds, extremes
from vae_train.runs.apply.inputs import ArrayForm, Inputs, Request, numbered
from vae_train.runs.apply.labels import given_labels
from vae_train.runs.apply.pixel_scale import PixelScale
from vae_train.runs.config import Config
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError, collecting

MAX_SCANNED_BYTES = 2**30
"""Larger arrays are only checked at evenly spaced images."""

TOLERANCE = 1e-6
"""By how much a pixel may exceed its range, because of rounding."""


def open_array(request: Request, model: TrainedModel, config: Config) -> Inputs:
    """Opens the images of a .npy, .npz, .pt or .csv file.

    Args:
        request: what to open.
        model: the model, which the shape of the images must fit.
        config: the run's configuration.

    Raises:
        UsageError: the file cannot be read, or shape, values or labels do not fit the model.
    """
    path, facts, errors = request.paths[0], model.facts, list[ErrorDetail]()
    with collecting(errors, f"input={path}"):
        arrays, mapped = open_file(path)
        name = _name(arrays, request.key)
        array = read_array(arrays, name)
        check_kinds({name: array})
        layout = _layout(array, facts)
        check_missing([array], facts.missing, MAX_SCANNED_BYTES)
        stored, form, note = _stored(array, layout, mapped, facts, config)
        _check_range(array, facts, form, model)
        labels = _labels(arrays, name, len(array))
        y, classes = given_labels(request.label, labels, len(array), model)
    if errors:
        raise UsageError(errors)
    stored = StoredImages(stored.store, stored.levels, y, stored.stochastic)
    images = TransformedImages(stored, model.device, model.input_transforms)
    notes = tuple(filter(None, [note]))
    return Inputs(images, numbered(len(array)), classes, Path(path).stem, request.noise(), notes, form=form)


def form_of_data(facts: DataFacts, config: Config) -> ArrayForm | None:
    """How results are stored that belong to a split of an array file; None for image files and published data."""
    if facts.layout is None:
        return None
    if facts.units is not None:
        return ArrayForm(facts.layout, np.dtype(np.float32))
    scale = PixelScale.of(facts, config)
    integers = float(scale.low).is_integer() and float(scale.high).is_integer() and scale.high > 1
    kind = np.min_scalar_type(int(scale.high)) if integers and scale.low >= 0 else np.dtype(np.float32)
    return ArrayForm(facts.layout, np.dtype(kind), scale.low, scale.high)


def _name(arrays: Mapping[str, np.ndarray], key: str | None) -> str:
    """The name of the array with the images."""
    try:
        names = image_names(arrays, key)
    except UsageError as error:
        raise UsageError([ErrorDetail(e.where.replace("data.", ""), e.message) for e in error.errors]) from error
    if len(names) > 1:
        which = " or ".join(f"key={name}" for name in names.values())
        raise UsageError([ErrorDetail("key=", f"is needed: the file has several arrays of images; use {which}")])
    return next(iter(names.values()))


def _layout(array: np.ndarray, facts: DataFacts) -> Layout:
    """The order of dimensions with which the array has images of the model's shape."""
    channels, *_ = facts.data_shape
    layouts: list[Layout] = [facts.layout] if facts.units is not None and facts.layout is not None else []
    layouts = layouts or ["NCHW", "NHWC", *(["NHW"] if channels == 1 else [])]  # type: ignore[list-item]
    shapes = {known: file_shape(facts.data_shape, known) for known in layouts}
    for known, shape in shapes.items():
        if array.shape[1:] == shape:
            return known
    wanted = " or ".join(f"(N, {', '.join(map(str, shape))})" for shape in dict.fromkeys(shapes.values()))
    raise UsageError(f"has shape {array.shape}, but this model takes {wanted}")


def _stored(
    array: np.ndarray, layout: Layout, mapped: bool, facts: DataFacts, config: Config
) -> tuple[StoredImages, ArrayForm, str | None]:
    """The images as stored, the form of the results, and a note on binarisation."""
    if facts.units is not None and facts.levels is None:
        floats = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
        return StoredImages(ArrayStore(array, None, layout, mapped, facts.units), None), ArrayForm(layout, floats), None
    scale = PixelScale.of(facts, config).of_array(array, facts.layout is not None)
    store = RescaledStore(array, np.arange(len(array)), layout, scale.low, scale.high, scale.levels)
    form = ArrayForm(layout, array.dtype, scale.low, scale.high)
    return StoredImages(store, scale.levels, stochastic=scale.stochastic), form, scale.note


def _check_range(array: np.ndarray, facts: DataFacts, form: ArrayForm, model: TrainedModel) -> None:
    """Rejects values outside of the range that the model was trained on."""
    units = facts.units
    if units is not None and facts.levels is None:
        if not getattr(getattr(model.model, "likelihood", None), "is_bounded", False):
            return
        low, high = min(units.low), max(units.high)
    else:
        low, high = form.low, form.high
    found = extremes([array], array.nbytes <= MAX_SCANNED_BYTES)
    margin = TOLERANCE * (high - low)
    if found[0] < low - margin or found[1] > high + margin:
        raise UsageError(f"has values from {found[0]:g} to {found[1]:g}, but this model takes {low:g} to {high:g}")


def _labels(arrays: Mapping[str, np.ndarray], name: str, count: int) -> list[object] | None:
    """The label of every image; None if the file has none."""
    key = label_name(arrays, name, None)
    if key is None:
        return None
    labels = read_array(arrays, key)
    return labels.tolist() if labels.shape == (count,) and labels.dtype.kind in "uibUS" else None
