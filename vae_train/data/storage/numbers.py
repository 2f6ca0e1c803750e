"""What numbers an array holds, and whether they can be pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from vae_train.batch import evenly_spaced
from vae_train.data.storage.stored import CHUNK, SAMPLED, expect_jumps
from vae_train.util.errors import ErrorDetail, UsageError


def check_kinds(images: Mapping[str, np.ndarray]) -> None:
    """Refuses what is no array of numbers, or an empty one."""
    for name, array in images.items():
        if array.dtype.kind not in "uibf":
            raise UsageError(
                f"{said(name)}holds {array.dtype}, and images are made of integers or floating-point numbers"
            )
        if not array.size:
            raise UsageError(f"{said(name)}has shape {array.shape}: there is nothing in it")
    if len({array.dtype.kind == "f" for array in images.values()}) > 1:
        found = ", ".join(f"{array.dtype} in {name}" for name, array in images.items())
        raise UsageError(f"mixes integers and floating-point numbers: {found}")


def extremes(arrays: list[np.ndarray], whole: bool) -> tuple[float, float]:
    """The smallest and the largest number; of a large file those of some images that are spread over it.

    Raises:
        UsageError: some are NaN or infinite.
    """
    lows, highs = [], []
    for array in arrays:
        for part in _chunks(array, whole):
            low, high = float(part.min()), float(part.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise UsageError("holds numbers that are NaN or infinite")
            lows.append(low)
            highs.append(high)
    return min(lows), max(highs)


def rounded(bounds: tuple[float, float], arrays: list[np.ndarray]) -> tuple[float, float]:
    """The nearest numbers that the arrays can hold: a float32 cannot be 0.1."""
    kind = min((array.dtype for array in arrays), key=lambda dtype: dtype.itemsize).type
    with np.errstate(over="ignore"):
        return min(bounds[0], float(kind(bounds[0]))), max(bounds[1], float(kind(bounds[1])))


def check_precision(low: float, high: float) -> None:
    """Refuses numbers of which float32 would lose more than what is told apart by eight bits."""
    width, largest = high - low, max(abs(low), abs(high))
    if not (1e-30 < width < 1e30 and largest <= 2**16 * width):
        raise UsageError(
            f"has the range {low:.9g} to {high:.9g}, too coarse in float32: shift or scale the numbers first"
        )


def check_grid(arrays: list[np.ndarray], whole: bool, levels: int, bounds: tuple[float, float]) -> None:
    """Refuses numbers that are not `levels` evenly spaced ones from one bound to the other."""
    low, high = bounds
    for part in (part for array in arrays for part in _chunks(array, whole)):
        steps = (part.astype(np.result_type(part, np.float32)) - low) * ((levels - 1) / (high - low))
        if np.abs(steps - steps.round()).max() > 0.25:
            what = f"the file holds numbers between the levels from {low:g} to {high:g}"
            raise UsageError([ErrorDetail(f"data.levels={levels}", what)])


def _chunks(array: np.ndarray, whole: bool) -> Iterator[np.ndarray]:
    if not whole:
        expect_jumps(array)
        yield from (array[number] for number in evenly_spaced(len(array), SAMPLED).tolist())
        return
    count = max(1, CHUNK * len(array) // max(array.nbytes, 1))
    for start in range(0, len(array), count):
        yield array[start : start + count]


def said(name: str) -> str:
    """The name of an array in front of what is said of it."""
    return f"{name} " if name else ""
