"""Infers the levels of pixels from the integers that the files of a data set hold."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from vae_train.util.errors import ErrorDetail, UsageError

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of a pixel that cameras, scanners and file formats have."""

GCD_SLICE = 2**16
"""Integers whose common divisor is computed at a time: most often it is 1 after the first slice."""

FEW_LEVELS = 64
"""Of 256 levels this many or fewer are suggested where no pixel has a higher one."""

MAX_FLOAT_LEVELS = 1024
"""Floating-point numbers that may be levels; more are continuous."""

MIN_PIXELS_PER_LEVEL = 8
"""Pixels that each of them must have on average: a few numbers are evenly spaced by chance."""

GRID_TOLERANCE = 0.1
"""Deviation from even spacing, as a fraction of it, that rounding may cause."""


class Integers(NamedTuple):
    """What is known of a set of integers; sets can be joined without the integers themselves."""

    low: int
    high: int
    step: int
    """Their greatest common divisor."""
    at_ends: bool
    """Whether all are `low` or `high`."""

    @classmethod
    def of(cls, array: np.ndarray) -> Integers:
        """The integers or truth values of an array, which must not be empty."""
        values = (array.view(np.uint8) if array.dtype == np.bool_ else array).ravel()
        low, high, step = values.min(), values.max(), 0
        for start in range(0, values.size, GCD_SLICE):
            step = math.gcd(step, int(np.gcd.reduce(values[start : start + GCD_SLICE])))
            if step == 1:
                break
        return cls(int(low), int(high), step, bool(((values == low) | (values == high)).all()))

    def joined(self, other: Integers) -> Integers:
        """The integers of both."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        ends = {self.low, self.high, other.low, other.high} <= {low, high}
        return Integers(low, high, math.gcd(self.step, other.step), self.at_ends and other.at_ends and ends)

    @property
    def is_binary(self) -> bool:
        """Whether there are exactly two."""
        return self.at_ends and self.low < self.high

    def bounds(self, levels: int) -> tuple[int, int] | None:
        """The integers of the first and the last of `levels` levels; None if they do not fit on these."""
        if levels == 2 and self.is_binary:
            return self.low, self.high
        if self.high < levels:
            return 0, levels - 1
        return (0, self.step * (levels - 1)) if self.high <= self.step * (levels - 1) else None

    def fit(self, levels: int, low: int, high: int) -> bool:
        """Whether all are on `levels` evenly spaced numbers from `low` to `high`."""
        if self.low < low or self.high > high:
            return False
        if (levels - 1) % (high - low) == 0 or (low == 0 and self.step * (levels - 1) % high == 0):
            return True
        return self.at_ends and {self.low, self.high} <= {low, high}


def depth(high: int) -> int | None:
    """The smallest of `DEPTHS` that holds an integer; None for more than 16 bits."""
    return next((bits for bits in DEPTHS if high < 2**bits), None)


def inferred_levels(found: Integers, bits: int) -> tuple[int, list[str]]:
    """Number of levels of pixels, and at most one sentence about it.

    Two for exactly two integers, else as many as the bits can tell apart.

    Args:
        found: the integers of all images, none of them negative.
        bits: what all files need: 8 or more, or 1 for files of one bit, which scaling may have turned into bytes.
    """
    if bits == 1:
        note = "files of 1 bit become grey where they are scaled; data.resample=nearest keeps 2 levels"
        return (2, []) if found.at_ends else (256, [note])
    if found.is_binary:
        note = f"pixels are {found.low} or {found.high} alone, and so binary; for more levels set data.levels="
        return 2, [note] if (found.low, found.high) != (0, 1) else []
    levels = int(2**bits)
    taken = f"pixels up to {found.high:,} are taken as {bits} bits, {levels:,} levels"
    if (other := _other_levels(found, levels)) is not None:
        which = f"are multiples of {found.step}" if found.step > 1 else f"end at {found.high}"
        return levels, [f"{taken}, but all {which}: for {other:,} levels set data.levels={other}"]
    return levels, [f"{taken}; for others set data.levels="] if bits > 8 else []


def stated_bounds(found: Integers, levels: int) -> tuple[int, int]:
    """See `Integers.bounds`.

    Raises:
        UsageError: the integers do not fit on so many levels.
    """
    if (bounds := found.bounds(levels)) is None:
        what = f"the data holds integers up to {found.high}, which are at least {found.high // found.step + 1} levels"
        raise UsageError([ErrorDetail(f"data.levels={levels}", what)])
    return bounds


def _other_levels(found: Integers, levels: int) -> int | None:
    """A smaller number of levels that integers fit on; None without one."""
    if found.high == 0:
        return None
    count = found.high // found.step + 1
    if found.step > 1:  # highest levels may not occur: 12 bits that are shifted to 16 have 4,096 levels
        return min(2 ** (count - 1).bit_length(), (levels - 1) // found.step + 1)
    return count if levels == 256 and count <= FEW_LEVELS else None


def float_levels(values: np.ndarray) -> list[str]:
    """A sentence if floating-point pixels take a few evenly spaced values, for instance k / 255.

    Args:
        values: some pixels; NaN do not count.
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
    return [f"pixels are taken as continuous, but have {count:,} levels alone: for these set {settings}"]


def _on_grid(numbers: np.ndarray, low: float, step: float) -> bool:
    steps = (numbers - low) / step
    return bool(np.abs(steps - steps.round()).max() <= GRID_TOLERANCE)
