"""Checks whether the values of an array can be pixels, and infers their levels and range."""

import math
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import NamedTuple

import numpy as np

from vae_train.batch import Units, evenly_spaced
from vae_train.data.storage.levels import Integers, depth, float_levels, inferred_levels, stated_bounds
from vae_train.data.storage.stored import CHUNK_BYTES, NUM_SAMPLED, expect_random_access
from vae_train.util.errors import ErrorDetail, UsageError

MAX_PIXELS = 1024
"""Number of pixels per image that are searched for levels of floating-point numbers."""


class Values(NamedTuple):
    """The meaning of the values of an array."""

    levels: int | None
    """Number of values of a pixel; None for continuous numbers."""
    units: Units
    """Their map to the values of a model, which are in [0, 1] for levels."""
    plain: bool = False
    """Whether the values are the integers 0 to levels - 1."""
    notes: tuple[str, ...] = ()
    """Notes about what was inferred."""


def check_kinds(images: Mapping[str, np.ndarray]) -> None:
    """Rejects arrays that are empty or not numeric.

    Raises:
        UsageError: names the array.
    """
    for name, array in images.items():
        if array.dtype.kind not in "uibf":
            raise UsageError(
                f"{prefix(name)}has the type {array.dtype}, but images consist of integers or floating-point numbers"
            )
        if not array.size:
            raise UsageError(f"{prefix(name)}is empty: it has shape {array.shape}")
    if len({array.dtype.kind == "f" for array in images.values()}) > 1:
        kinds = ", ".join(f"{array.dtype} in {name}" for name, array in images.items())
        raise UsageError(f"mixes integers and floating-point numbers: {kinds}")


def measured(
    arrays: list[np.ndarray], levels: int | None, bounds: tuple[float, float] | None, max_scanned_bytes: int
) -> Values:
    """Infers levels and range of the values, or checks given ones.

    Args:
        arrays: the images of every split; all integers or all floating-point.
        levels: the given number of levels, or None.
        bounds: the given range, or None.
        max_scanned_bytes: size above which only evenly spaced images are checked.

    Raises:
        UsageError: the values cannot be pixels, or do not match the given levels or range; names the setting that
            helps.
    """
    whole = sum(array.nbytes for array in arrays) <= max_scanned_bytes
    low, high = extremes(arrays, whole)
    integers = arrays[0].dtype.kind in "uib"
    notes: list[str] = []
    if bounds is None and integers:
        levels, bounds, notes = _integer_levels(arrays, levels, whole)
    elif bounds is None:
        bounds = _measured_range(low, high, levels, whole)
        some = [chunk.ravel()[:: math.ceil(chunk.size / MAX_PIXELS)] for chunk in chunks(arrays, whole=False)]
        notes = float_levels(np.concatenate(some))
    smallest, largest = bounds if integers else _rounded(bounds, arrays)
    if low < smallest or high > largest:
        raise UsageError(f"has numbers from {low:g} to {high:g}, outside data.range={list(bounds)}")
    _check_precision(*bounds)
    plain = levels is not None and integers and bounds == (0, levels - 1)
    if levels is not None and not plain:
        _check_grid(arrays, whole, levels, bounds)
    return Values(levels, shared_units(bounds), plain, tuple(notes))


def shared_units(bounds: tuple[float, float]) -> Units:
    """Units that map the range `bounds` of all values to [0, 1]."""
    low, high = bounds
    return Units((), (low,), (high - low,), (low,), (high,))


def prefix(name: str) -> str:
    """The name of an array as the start of a message."""
    return f"{name} " if name else ""


def _integer_levels(
    arrays: list[np.ndarray], levels: int | None, whole: bool
) -> tuple[int, tuple[float, float], list[str]]:
    """Number of levels of integers, the integers of the first and the last level, and notes."""
    notes: list[str] = []
    if all(array.dtype == np.bool_ for array in arrays):
        return levels or 2, (0.0, (levels or 2) - 1.0), notes
    found = reduce(Integers.joined, map(Integers.of, chunks(arrays, whole)))
    if found.low < 0:
        raise UsageError(
            f"has integers from {found.low} to {found.high}; set their range with data.range=[{found.low},{found.high}]"
        )
    if levels is None:
        width = max(array.dtype.itemsize for array in arrays)
        if not whole and (found.at_ends or not (width == 1 or (width == 2 and found.high >= 2**14))):
            what = f"is needed: there are integers up to {found.high}, but the file is too large to check all"
            raise UsageError([ErrorDetail("data.levels=", what)])
        bits = 8 if width == 1 else depth(found.high)
        if bits is None and not found.is_binary:
            raise UsageError(f"has integers up to {found.high}; set the number of levels with data.levels=")
        levels, notes = inferred_levels(found, bits or 16)
    low, high = stated_bounds(found, levels)
    return levels, (float(low), float(high)), notes


def _measured_range(low: float, high: float, levels: int | None, whole: bool) -> tuple[float, float]:
    """The range of floating-point numbers, if none is given."""
    if levels is not None:
        what = "is needed: the floating-point numbers of the first and the last level"
        raise UsageError([ErrorDetail("data.range=", what)])
    if not whole:
        raise UsageError([ErrorDetail("data.range=", "is needed: the file is too large to measure it")])
    if low == high:
        raise UsageError(f"only contains the number {low:g}; if this is intended, set data.range=[smallest,largest]")
    return low, high


def extremes(arrays: list[np.ndarray], whole: bool) -> tuple[float, float]:
    """The smallest and the largest number, of evenly spaced images unless `whole`; NaN are ignored."""
    reductions = (np.fmin.reduce, np.fmax.reduce)
    ends = [[float(reduce(chunk, axis=None)) for reduce in reductions] for chunk in chunks(arrays, whole)]
    low, high = (float(reduce(values)) for reduce, values in zip(reductions, zip(*ends, strict=True), strict=True))
    return low, high


def _rounded(bounds: tuple[float, float], arrays: list[np.ndarray]) -> tuple[float, float]:
    """Widens the range to numbers that the arrays can represent, since 0.1 is not a float32."""
    kind = min((array.dtype for array in arrays), key=lambda dtype: dtype.itemsize).type
    with np.errstate(over="ignore"):
        return min(bounds[0], float(kind(bounds[0]))), max(bounds[1], float(kind(bounds[1])))


def _check_precision(low: float, high: float) -> None:
    """Rejects a range in which float32 has fewer than 2^8 steps."""
    width, largest = high - low, max(abs(low), abs(high))
    if not (1e-30 < width < 1e30 and largest <= 2**16 * width):
        raise UsageError(
            f"has the range {low:.9g} to {high:.9g}, which is too coarse in float32; shift or scale the numbers first"
        )


def _check_grid(arrays: list[np.ndarray], whole: bool, levels: int, bounds: tuple[float, float]) -> None:
    """Rejects numbers other than `levels` evenly spaced ones within the bounds."""
    low, high = bounds
    for chunk in chunks(arrays, whole):
        steps = (chunk.astype(np.result_type(chunk, np.float32)) - low) * ((levels - 1) / (high - low))
        if np.fmax.reduce(np.abs(steps - steps.round()), axis=None) > 0.25:
            what = f"the file has numbers between the levels from {low:g} to {high:g}"
            raise UsageError([ErrorDetail(f"data.levels={levels}", what)])


def chunks(arrays: list[np.ndarray], whole: bool) -> Iterator[np.ndarray]:
    """Yields all images in chunks, or evenly spaced images unless `whole`."""
    for array in arrays:
        if whole:
            count = max(1, CHUNK_BYTES * len(array) // max(array.nbytes, 1))
            yield from (array[start : start + count] for start in range(0, len(array), count))
        else:
            expect_random_access(array)
            yield from (array[number] for number in evenly_spaced(len(array), NUM_SAMPLED).tolist())
