"""When a run ends before its last epoch."""

from __future__ import annotations

import math
from typing import Any, Protocol

from typing_extensions import override


class Stopping(Protocol):
    """Observes the monitored value of every validation and decides when training ends."""

    def observe(self, epoch: int, value: float) -> bool:
        """Returns whether training ends after this epoch.

        Args:
            epoch: number of the epoch; the first is 1.
            value: what the run monitors; lower is better.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the decision depends on, as plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        ...


class Patience(Stopping):
    """Ends a run after some validations without improvement.

    Args:
        patience: number of validations in a row; None never ends the run.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience, self.best, self.waited = patience, math.inf, 0

    @override
    def observe(self, epoch: int, value: float) -> bool:
        if value < self.best:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.patience is not None and self.waited >= self.patience

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
