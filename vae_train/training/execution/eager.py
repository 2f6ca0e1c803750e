"""Steps that are executed operation by operation."""

from __future__ import annotations

from typing_extensions import override

from vae_train.training.execution.base import Mode, Rows, Runner, stacked


class Eager(Runner):
    """One step at a time, one operation at a time."""

    mode: Mode = "eager"

    @override
    def __call__(self, step: int, limit: int) -> Rows:
        return stacked(self.step(self.feed.inputs(step)))
