"""Repeated measurements and ratios of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """The median, minimum and maximum of a quantity, with the values of all repetitions."""

    median: float
    min: float
    max: float
    values: list[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Measurement:
        """Summarises repetitions, rounded to five significant digits."""
        rounded = [_round(value) for value in values]
        return cls(_round(statistics.median(values)), min(rounded), max(rounded), rounded)

    def map(self, function: Callable[[float], float]) -> Measurement:
        """Applies a function to every repetition."""
        return Measurement.of([function(value) for value in self.values])

    def as_json(self) -> dict[str, Any]:
        """A dictionary for the results file."""
        return asdict(self)


def speedup(seconds: Sequence[float], reference: Sequence[float]) -> Measurement:
    """How many times as fast as a reference something is, from repetitions that took turns.

    Ratios are formed within each repetition, so that a disturbance of the machine affects both sides.

    Args:
        seconds: time of every repetition.
        reference: time of every repetition of the reference.
    """
    return Measurement.of([other / own for own, other in zip(seconds, reference, strict=True)])


def _round(value: float) -> float:
    return float(f"{value:.5g}")
