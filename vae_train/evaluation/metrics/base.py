"""The interface of metrics: outputs, requirements and estimates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from vae_train.evaluation.subject import Subject

Better = Literal["higher", "lower"]


class MetricInfo(NamedTuple):
    """How an output is reported."""

    name: str
    """Key in the report."""
    title: str
    """Readable name."""
    unit: str = ""
    decimals: int = 2
    better: Better | None = None
    """Which of two values is the better one; None if neither is, as for the rate."""

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty."""

    value: float
    se: float | None
    """Standard error; None if it is undefined, as for a single image."""
    n: int
    """Number of images."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Additional entries of the report. It prints "of" (a maximum), "num_samples" (K), "conditions" (what the value
    depends on), "title" (replaces the output's title) and "warning" (a problem of the model, and what to try)."""

    @classmethod
    def mean_of(cls, values: Tensor, **about: Any) -> Estimate:
        """Estimates the mean of values `(N,)`."""
        values = values.cpu().double()
        se = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(values.mean().item(), se, len(values), about)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Estimate:
        """Reads an entry of the JSON report."""
        about = {key: value for key, value in entry.items() if key not in ("value", "se", "n")}
        return cls(entry["value"], entry["se"], entry["n"], about)

    def to_dict(self) -> dict[str, Any]:
        """Returns the entry of the JSON report."""
        return {"value": self.value, "se": self.se, "n": self.n, **self.about}


class Unavailable(NamedTuple):
    """An output that cannot be computed for this model and data."""

    reason: str


Results = dict[str, Estimate | Unavailable]

Requirement = Callable[[Subject], str | None]
"""Returns why a subject does not qualify, or None if it does."""


class Metric(ABC):
    """One metric, or several metrics that a publication defines together.

    A subclass in its own file, with a YAML in `conf/metric` that names it in `_target_`, is a metric of `vae eval`.
    The settings of the YAML are the arguments of its constructor.

    Args:
        enabled: whether the metric is computed.
    """

    outputs: ClassVar[tuple[MetricInfo, ...]]
    """The outputs in the order of the report; empty for a metric that only plots."""
    requires: ClassVar[tuple[Requirement, ...]] = ()
    """Requirements on model and data."""
    order: ClassVar[int] = 100
    """Metrics are computed and reported by ascending order."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def measure(self, subject: Subject) -> Results:
        """Computes the metric; if a requirement is not met, every output is `Unavailable` with the reason."""
        for requirement in self.requires:
            if reason := requirement(subject):
                return self.unavailable(reason)
        return self(subject)

    def unavailable(self, reason: str) -> Results:
        """Returns `Unavailable` for every output."""
        return {info.name: Unavailable(reason) for info in self.outputs}

    @abstractmethod
    def __call__(self, subject: Subject) -> Results:
        """Computes a result for every output, for a subject that meets the requirements."""
