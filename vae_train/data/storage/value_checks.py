"""Checks whether the numbers of an array can be pixels, and infers their levels and range."""

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
"""Pixels of an image that are searched for levels of floating-point numbers."""


class Values(NamedTuple):
    """What the numbers of an array mean."""

    levels: int | None
    """Number of values of a pixel; None for continuous numbers."""
    units: Units
    """Their map to the numbers of a model, which for levels are those in [0, 1]."""
    plain: bool = False
    """Whether they are the integers 0 to levels - 1."""
    notes: tuple[str, ...] = ()
    """What was inferred, a sentence each."""


def check_kinds(images: Mapping[str, np.ndarray]) -> None:
    """Refuses arrays that hold no numbers, or nothing at all.

    Raises:
        UsageError: says which array.
    """
    for name, array in images.items():
        if array.dtype.kind not in "uibf":
            raise UsageError(
                f"{prefix(name)}holds {array.dtype}, but images are made of integers or floating-point numbers"
            )
        if not array.size:
            raise UsageError(f"{prefix(name)}has shape {array.shape}: it is empty")
    if len({array.dtype.kind == "f" for array in images.values()}) > 1:
        kinds = ", ".join(f"{array.dtype} in {name}" for name, array in images.items())
        raise UsageError(f"mixes integers and floating-point numbers: {kinds}")


def measured(
    arrays: list[np.ndarray], levels: int | None, bounds: tuple[float, float] | None, max_scanned_bytes: int
) -> Values:
    """Infers levels and range of the numbers, or checks the stated ones.

    Args:
        arrays: the images of every split; all integers or all floating-point.
        levels: the stated number of levels, or None.
        bounds: the stated range, or None.
        max_scanned_bytes: of larger arrays only evenly spaced images are checked.

    Raises:
        UsageError: the numbers cannot be pixels, or not those that are stated; says which setting helps.
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
        raise UsageError(f"holds numbers from {low:g} to {high:g}, outside of data.range={list(bounds)}")
    _check_precision(*bounds)
    plain = levels is not None and integers and bounds == (0, levels - 1)
    if levels is not None and not plain:
        _check_grid(arrays, whole, levels, bounds)
    return Values(levels, shared_units(bounds), plain, tuple(notes))


def shared_units(bounds: tuple[float, float]) -> Units:
    """One map of all numbers, of the range `bounds` to [0, 1]."""
    low, high = bounds
    return Units((), (low,), (high - low,), (low,), (high,))


def prefix(name: str) -> str:
    """The name of an array in front of a message about it."""
    return f"{name} " if name else ""


def _integer_levels(
    arrays: list[np.ndarray], levels: int | None, whole: bool
) -> tuple[int, tuple[float, float], list[str]]:
    """Number of levels of integers, the integers of the first and the last one, and sentences about them."""
    notes: list[str] = []
    if all(array.dtype == np.bool_ for array in arrays):
        return levels or 2, (0.0, (levels or 2) - 1.0), notes
    found = reduce(Integers.joined, map(Integers.of, chunks(arrays, whole)))
    if found.low < 0:
        raise UsageError(f"holds integers from {found.low} to {found.high}; set their range with data.range=")
    if levels is None:
        width = max(array.dtype.itemsize for array in arrays)
        if not whole and (found.at_ends or not (width == 1 or (width == 2 and found.high >= 2**14))):
            what = f"is needed: integers up to {found.high} were found, but the file is too large to check all"
            raise UsageError([ErrorDetail("data.levels=", what)])
        bits = 8 if width == 1 else depth(found.high)
        if bits is None and not found.is_binary:
            raise UsageError(f"holds integers up to {found.high}; set the number of levels with data.levels=")
        levels, notes = inferred_levels(found, bits or 16)
    low, high = stated_bounds(found, levels)
    return levels, (float(low), float(high)), notes


def _measured_range(low: float, high: float, levels: int | None, whole: bool) -> tuple[float, float]:
    """The range of floating-point numbers, where none is stated."""
    if levels is not None:
        what = "is needed: it says which floating-point numbers the first and the last level are"
        raise UsageError([ErrorDetail("data.range=", what)])
    if not whole:
        raise UsageError([ErrorDetail("data.range=", "is needed: the file is too large to search for its extremes")])
    if low == high:
        raise UsageError(f"holds the number {low:g} alone; if that is intended, set data.range=[smallest,largest]")
    return low, high


def extremes(arrays: list[np.ndarray], whole: bool) -> tuple[float, float]:
    """The smallest and the largest number; those of evenly spaced images unless `whole`. NaN do not count."""
    reductions = (np.fmin.reduce, np.fmax.reduce)
    ends = [[float(reduce(chunk, axis=None)) for reduce in reductions] for chunk in chunks(arrays, whole)]
    low, high = (float(reduce(values)) for reduce, values in zip(reductions, zip(*ends, strict=True), strict=True))
    return low, high


def _rounded(bounds: tuple[float, float], arrays: list[np.ndarray]) -> tuple[float, float]:
    """The nearest numbers that the arrays can hold: no float32 is 0.1."""
    kind = min((array.dtype for array in arrays), key=lambda dtype: dtype.itemsize).type
    with np.errstate(over="ignore"):
        return min(bounds[0], float(kind(bounds[0]))), max(bounds[1], float(kind(bounds[1])))


def _check_precision(low: float, high: float) -> None:
    """Refuses a range in which float32 has fewer steps than eight bits."""
    width, largest = high - low, max(abs(low), abs(high))
    if not (1e-30 < width < 1e30 and largest <= 2**16 * width):
        raise UsageError(
            f"has the range {low:.9g} to {high:.9g}, too coarse in float32: shift or scale the numbers first"
        )


def _check_grid(arrays: list[np.ndarray], whole: bool, levels: int, bounds: tuple[float, float]) -> None:
    """Refuses numbers that are not `levels` evenly spaced ones from one bound to the other."""
    low, high = bounds
    for chunk in chunks(arrays, whole):
        steps = (chunk.astype(np.result_type(chunk, np.float32)) - low) * ((levels - 1) / (high - low))
        if np.fmax.reduce(np.abs(steps - steps.round()), axis=None) > 0.25:
            what = f"the file holds numbers between the levels from {low:g} to {high:g}"
            raise UsageError([ErrorDetail(f"data.levels={levels}", what)])


def chunks(arrays: list[np.ndarray], whole: bool) -> Iterator[np.ndarray]:
    """All images, some at a time, or evenly spaced ones."""
    for array in arrays:
        if whole:
            count = max(1, CHUNK_BYTES * len(array) // max(array.nbytes, 1))
            yield from (array[start : start + count] for start in range(0, len(array), count))
        else:
            expect_random_access(array)
            yield from (array[number] for number in evenly_spaced(len(array), NUM_SAMPLED).tolist())
