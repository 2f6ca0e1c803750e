"""What a measurement is: several repetitions, of which the median and the spread are told."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The median, the extremes and all repetitions of a figure."""

    median: float
    min: float
    max: float
    all: list[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of some repetitions, with five significant digits."""
        short = [float(f"{value:.5g}") for value in values]
        return cls(float(f"{statistics.median(values):.5g}"), min(short), max(short), short)

    def map(self, function: Callable[[float], float]) -> Spread:
        """The same repetitions of another figure."""
        return Spread.of([function(value) for value in self.all])

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


def times_as_fast(mine: Sequence[float], others: Sequence[float]) -> Spread:
    """How many times as long the others took, repetition by repetition: those were measured one after the other."""
    return Spread.of([other / own for own, other in zip(mine, others, strict=True)])
