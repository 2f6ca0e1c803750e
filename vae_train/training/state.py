"""The state of a training as stored in checkpoints, and early stopping."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from typing_extensions import override

from vae_train.training.learner import Learner
from vae_train.training.meter import Meter
from vae_train.util.text import short_number

SUMMARIZED = ("elbo", "rate", "distortion", "bits_per_dim")
"""Metrics in a run's summary, if the model has them."""


@dataclass
class Progress:
    """The progress of a run, and its best validation."""

    step: int = 0
    """Number of updates."""
    best: float = math.inf
    """The lowest monitored value of all validations."""
    best_epoch: int = 0
    best_by: str = ""
    """What validations are compared by; values of another criterion do not count."""
    best_metrics: dict[str, float] = field(default_factory=dict)
    """Validation metrics of the best epoch."""
    ended: int = 0
    """The number of epochs of the run if it was stopped early; 0 otherwise."""

    def observe(self, epoch: int, value: float, row: dict[str, float], by: str) -> None:
        """Records a validation. The record is reset if the criterion has changed.

        Args:
            epoch: number of the epoch.
            value: the value to compare; lower is better.
            row: the validation's metrics.
            by: name of the criterion.
        """
        if value < self.best or by != self.best_by:
            self.best, self.best_metrics, self.best_epoch, self.best_by = value, dict(row), epoch, by

    def describe_best(self) -> str:
        """The ELBO of the best epoch, or its monitored value; empty before the first validation."""
        return f"best {short_number(self.best_metrics.get('elbo', self.best))}" if self.best_epoch else ""

    def summary(self) -> dict[str, Any]:
        """The best epoch, its criterion and its metrics; empty without a validation."""
        if not self.best_epoch:
            return {}
        metrics = {f"best_{name}": self.best_metrics[name] for name in SUMMARIZED if name in self.best_metrics}
        return {"best_epoch": self.best_epoch, "best_by": self.best_by} | metrics


class Stopping(Protocol):
    """Observes every validation, and decides when training ends."""

    is_pruned: bool
    """Whether the run was ended because others are better, so that it counts as pruned."""

    def observe(self, epoch: int, row: Mapping[str, float], settled: bool) -> bool:
        """Returns whether training ends after this epoch.

        Args:
            epoch: number of the epoch; the first is 1.
            row: the validation's metrics; "monitored" is the value that the best epoch has the lowest of.
            settled: whether the objective's schedules have ended.
        """

    def state_dict(self) -> dict[str, Any]:
        """The state of the decision as plain data."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""


class Patience(Stopping):
    """Ends a run after some validations without improvement, once the objective's schedules have ended.

    Args:
        patience: number of validations in a row; None never ends the run.
    """

    is_pruned = False

    def __init__(self, patience: int | None) -> None:
        self.patience, self.best, self.waited = patience, math.inf, 0

    @override
    def observe(self, epoch: int, row: Mapping[str, float], settled: bool) -> bool:
        if not settled:
            return False
        if row["monitored"] < self.best:
            self.best, self.waited = row["monitored"], 0
        else:
            self.waited += 1
        return self.patience is not None and self.waited >= self.patience

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


ReportValidation = Callable[[int, Mapping[str, float]], bool]
"""(epoch, the validation's metrics) -> whether the run is pruned. A resumed run repeats epochs after its checkpoint."""


class Pruning(Patience):
    """Reports every validation to a search, which ends runs that are worse than others, besides `Patience`.

    Args:
        patience: see `Patience`.
        report: receives the validations.
    """

    def __init__(self, patience: int | None, report: ReportValidation) -> None:
        super().__init__(patience)
        self.report, self.is_pruned = report, False

    @override
    def observe(self, epoch: int, row: Mapping[str, float], settled: bool) -> bool:
        ended = super().observe(epoch, row, settled)
        self.is_pruned = self.report(epoch, row)
        return ended or self.is_pruned

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"pruned": self.is_pruned}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.is_pruned = state.get("pruned", False)


class TrainingState:
    """The state that a resumed training continues from.

    Args:
        learner: takes the steps.
        stopping: decides when training ends.
    """

    def __init__(self, learner: Learner, stopping: Stopping) -> None:
        self.learner, self.stopping = learner, stopping
        self.progress, self.meter = Progress(), Meter()
        self.history = ""
        """Digest of all rows of metrics."""

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data and tensors."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return {
            **self.learner.state_dict(),
            "seed": self.learner.seed,
            "progress": asdict(self.progress),
            "meter": self.meter.state_dict(),
            "history": self.history,
            "stopping": self.stopping.state_dict(),
            # This package does not use the global generators, but libraries of external components may.
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        self.learner.load_state_dict(state)
        self.progress = Progress(**state["progress"])
        self.meter.load_state_dict(state["meter"])
        self.history = state.get("history", "")
        self.stopping.load_state_dict(state["stopping"])
        torch.set_rng_state(state["random"]["cpu"].cpu())
        cuda = state["random"]["cuda"]
        if self.learner.device.type == "cuda" and len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([generator.cpu() for generator in cuda])
