"""Infers the levels of pixels from the integers in the files of a data set."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from vae_train.util.errors import ErrorDetail, UsageError

DEPTHS = (8, 10, 12, 14, 16)
"""Common bit depths of cameras, scanners and file formats."""

GCD_SLICE = 2**16
"""Integers per slice when computing a common divisor, which is usually 1 after the first slice."""

FEW_LEVELS = 64
"""Maximal number of levels that is suggested instead of 256 if no pixel exceeds it."""

MAX_FLOAT_LEVELS = 1024
"""Maximal number of distinct floating-point values that may be levels; more are continuous."""

MIN_PIXELS_PER_LEVEL = 8
"""Least mean number of pixels per level, since a few values may be evenly spaced by chance."""

GRID_TOLERANCE = 0.1
"""Tolerance for rounding, as a fraction of the spacing."""


class Integers(NamedTuple):
    """Statistics of a set of integers, which can be joined without the integers themselves."""

    low: int
    high: int
    step: int
    """Their greatest common divisor."""
    at_ends: bool
    """Whether all integers equal `low` or `high`."""

    @classmethod
    def of(cls, array: np.ndarray) -> Integers:
        """The statistics of a non-empty array of integers or bools."""
        values = (array.view(np.uint8) if array.dtype == np.bool_ else array).ravel()
        low, high, step = values.min(), values.max(), 0
        for start in range(0, values.size, GCD_SLICE):
            step = math.gcd(step, int(np.gcd.reduce(values[start : start + GCD_SLICE])))
            if step == 1:
                break
        return cls(int(low), int(high), step, bool(((values == low) | (values == high)).all()))

    def joined(self, other: Integers) -> Integers:
        """The statistics of the union."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        ends = {self.low, self.high, other.low, other.high} <= {low, high}
        return Integers(low, high, math.gcd(self.step, other.step), self.at_ends and other.at_ends and ends)

    @property
    def is_binary(self) -> bool:
        """Whether there are exactly two distinct integers."""
        return self.at_ends and self.low < self.high

    def bounds(self, levels: int) -> tuple[int, int] | None:
        """The integers of the first and the last of `levels` levels; None if the integers do not fit."""
        if levels == 2 and self.is_binary:
            return self.low, self.high
        if self.high < levels:
            return 0, levels - 1
        return (0, self.step * (levels - 1)) if self.high <= self.step * (levels - 1) else None

    def fit(self, levels: int, low: int, high: int) -> bool:
        """Whether all integers are among `levels` evenly spaced numbers from `low` to `high`."""
        if self.low < low or self.high > high:
            return False
        if (levels - 1) % (high - low) == 0 or (low == 0 and self.step * (levels - 1) % high == 0):
            return True
        return self.at_ends and {self.low, self.high} <= {low, high}


def depth(high: int) -> int | None:
    """The smallest of `DEPTHS` that suffices for an integer; None for more than 16 bits."""
    return next((bits for bits in DEPTHS if high < 2**bits), None)


def inferred_levels(found: Integers, bits: int) -> tuple[int, list[str]]:
    """Infers the number of levels of pixels; also returns at most one note.

    It is 2 for exactly two distinct integers, else 2^bits.

    Args:
        found: the integers of all images, not negative.
        bits: bits for all files: 8 or more, or 1 for 1-bit files, which scaling may have converted to bytes.
    """
    if bits == 1:
        note = "scaling makes 1-bit files grey; data.resample=nearest keeps 2 levels"
        return (2, []) if found.at_ends else (256, [note])
    if found.is_binary:
        note = f"all pixels are {found.low} or {found.high} and taken as binary; for more levels set data.levels="
        return 2, [note] if (found.low, found.high) != (0, 1) else []
    levels = int(2**bits)
    taken = f"pixels up to {found.high:,} are taken as {bits} bits, {levels:,} levels"
    if (other := _other_levels(found, levels)) is not None:
        which = f"are multiples of {found.step}" if found.step > 1 else f"end at {found.high}"
        return levels, [f"{taken}, but all {which}; for {other:,} levels set data.levels={other}"]
    return levels, [f"{taken}; otherwise set data.levels="] if bits > 8 else []


def stated_bounds(found: Integers, levels: int) -> tuple[int, int]:
    """See `Integers.bounds`.

    Raises:
        UsageError: the integers need more levels.
    """
    if (bounds := found.bounds(levels)) is None:
        what = f"the data has integers up to {found.high}, which need at least {found.high // found.step + 1} levels"
        raise UsageError([ErrorDetail(f"data.levels={levels}", what)])
    return bounds


def _other_levels(found: Integers, levels: int) -> int | None:
    """A smaller number of levels that suffices for the integers; None if there is none."""
    if found.high == 0:
        return None
    count = found.high // found.step + 1
    if found.step > 1:  # the highest levels may not occur: 12 bits shifted to 16 have 4,096 levels
        return min(2 ** (count - 1).bit_length(), (levels - 1) // found.step + 1)
    return count if levels == 256 and count <= FEW_LEVELS else None


def float_levels(values: np.ndarray) -> list[str]:
    """A note if floating-point pixels have few, evenly spaced values, for instance k / 255.

    Args:
        values: some pixels; NaN are ignored.
    """
    numbers = np.unique(values[np.isfinite(values)]).astype(np.float64)
    if not 2 <= len(numbers) <= min(MAX_FLOAT_LEVELS, values.size / MIN_PIXELS_PER_LEVEL):
        return []
    low, high, step = numbers[0], numbers[-1], np.diff(numbers).min()
    if low >= 0 and high <= 1 and _on_grid(np.array([0.0, 1.0]), low, step):
        low, high = 0.0, 1.0
    count = round((high - low) / step) + 1
    step = (high - low) / (count - 1)
    if count > MAX_FLOAT_LEVELS or not _on_grid(numbers, low, step):
        return []
    settings = f"data.levels={count} data.range=[{low:g},{high:g}]"
    return [f"pixels are taken as continuous, but have only {count:,} distinct levels; to use them set {settings}"]


def _on_grid(numbers: np.ndarray, low: float, step: float) -> bool:
    steps = (numbers - low) / step
    return bool(np.abs(steps - steps.round()).max() <= GRID_TOLERANCE)
