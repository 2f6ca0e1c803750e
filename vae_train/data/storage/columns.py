"""Computes the units of vectors per column and of signals per channel."""

import logging
import math
from collections.abc import Iterator, Mapping

import numpy as np

from vae_train.batch import Layout, Shape, Split, Units, evenly_spaced
from vae_train.data.storage.layouts import image_shape, to_images
from vae_train.data.storage.stored import CHUNK_BYTES, NUM_SAMPLED
from vae_train.util.errors import ErrorDetail, UsageError

AXES: dict[Layout, tuple[int, ...]] = {"ND": (0,), "NCT": (0, 2, 3), "NTC": (0, 2, 3)}
"""Layout of vectors or signals -> the axes of (N, C, H, W) over which a column or channel is reduced."""

MAX_LISTED = 5
"""Number of columns that a message lists."""

Parts = list[tuple[np.ndarray, np.ndarray]]
"""Arrays, each with the indices of some of its images."""

log = logging.getLogger("vae_train")


def column_units(
    images: Mapping[Split, np.ndarray],
    rows: np.ndarray,
    layout: Layout,
    ranged: bool,
    known: Units | None,
    max_scanned_bytes: int,
) -> Units:
    """Computes the units of every column or channel, ignoring NaN.

    Args:
        images: the arrays of every split.
        rows: indices of the training images within their array.
        layout: one of `AXES`.
        ranged: scale the range of all splits to [0, 1], instead of training values to mean 0 and standard deviation 1.
        known: the units that a model was trained with, which are returned after checks.
        max_scanned_bytes: size above which only evenly spaced images are read.

    Raises:
        UsageError: a column has no numbers, too large numbers, or numbers outside the range that a model
            was trained on.
    """
    arrays = list(images.values())
    whole = sum(array.nbytes for array in arrays) <= max_scanned_bytes
    if ranged and known is None and not whole:
        raise UsageError([ErrorDetail("data.range=", "is needed: the file is too large to measure it")])
    parts: Parts = [(images["train"], rows), *((array, np.arange(len(array))) for array in arrays)]
    if not whole:
        parts = [(array, rows[evenly_spaced(len(rows), NUM_SAMPLED).numpy()]) for array, rows in parts]
    if known is not None and known.shape != column_shape(arrays[0], layout):
        raise UsageError(f"does not have the {len(known.shift)} columns of the training data")
    trained = _extremes(parts[:1], layout) if known is None else (known.array("low"), known.array("high"))
    if len(empty := np.flatnonzero(np.isnan(trained[0]))):
        raise UsageError(f"has no training values in column {', '.join(map(str, empty[:MAX_LISTED]))}; leave it out")
    low, high = _extremes(parts, layout) if ranged else trained
    outside = np.flatnonzero((low < trained[0]) | (high > trained[1]))
    if len(outside) and known is not None:
        raise UsageError(f"has numbers outside the range of the training data: {_listed(outside, low, high)}")
    if known is not None:
        return known
    if len(outside):
        log.info("validation or test values extend the training range: %s", _listed(outside, low, high))
    shift, scale = (low, high - low) if ranged else _moments(parts[:1], layout)
    if len(constant := np.flatnonzero(low == high)):
        log.info("constant columns, scaled by 1: %s", _listed(constant, low, high))
    scale = np.where((low < high) & (scale > 0), scale, 1.0)
    if not np.isfinite([shift, scale]).all():
        raise UsageError(f"has numbers that are too large: {_listed(np.flatnonzero(~np.isfinite(scale)), low, high)}")
    return Units(low.shape, *(tuple(numbers.ravel().tolist()) for numbers in (shift, scale, low, high)))


def column_shape(array: np.ndarray, layout: Layout) -> Shape:
    """Shape of one number per column of vectors or channel of signals, see `Units.shape`."""
    return tuple(1 if axis in AXES[layout] else n for axis, n in enumerate(image_shape(array.shape, layout), start=1))


def _chunks(parts: Parts, layout: Layout) -> Iterator[np.ndarray]:
    """Yields the images `(N, C, H, W)` in float64, in chunks."""
    for array, rows in parts:
        for some in np.array_split(rows, min(len(rows), math.ceil(array.nbytes / CHUNK_BYTES))):
            yield to_images(array[some], layout).astype(np.float64)


def _extremes(parts: Parts, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest number of every column."""
    axes = AXES[layout]
    pairs = (
        (np.fmin.reduce(x, axes, keepdims=True), np.fmax.reduce(x, axes, keepdims=True)) for x in _chunks(parts, layout)
    )
    lows, highs = zip(*pairs, strict=True)
    return np.fmin.reduce(lows)[0], np.fmax.reduce(highs)[0]


def _moments(parts: Parts, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column, in two passes."""
    axes = AXES[layout]

    def mean(shift: np.ndarray | float, power: int) -> np.ndarray:
        deviations = ((x - shift) ** power for x in _chunks(parts, layout))
        sums = [(np.nansum(x, axes, keepdims=True)[0], np.isfinite(x).sum(axes, keepdims=True)[0]) for x in deviations]
        total, count = (np.sum(terms, 0) for terms in zip(*sums, strict=True))
        return total / count

    with np.errstate(over="ignore"):
        location = mean(0.0, 1)
        return location, np.sqrt(mean(location, 2))


def _listed(columns: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Lists columns with their ranges."""
    names = [f"column {i} ({low.flat[i]:g} to {high.flat[i]:g})" for i in columns[:MAX_LISTED]]
    return ", ".join([*names, *(["…"] if len(columns) > MAX_LISTED else [])])
