"""The two kinds of failure that a person meets; everything else is a bug and shows its traceback."""

from __future__ import annotations

from typing import NamedTuple


class Mistake(NamedTuple):
    """One thing that is wrong with what was asked for: where it stands, and what would be right."""

    where: str
    why: str


class UsageError(Exception):
    """What was asked for cannot be done: nothing has been started or written. Exit code 2.

    Args:
        mistakes: every mistake that was found, or one text.
    """

    def __init__(self, mistakes: list[Mistake] | str) -> None:
        self.mistakes = [Mistake("", mistakes)] if isinstance(mistakes, str) else mistakes
        super().__init__("; ".join(f"{m.where}: {m.why}" if m.where else m.why for m in self.mistakes))


class RunError(Exception):
    """A run failed while it ran (a NaN, a full disk, a damaged checkpoint). Exit code 1."""


class Stopped(KeyboardInterrupt):
    """A run was stopped by a signal after it had saved its state. Exit code 128 + `signal`.

    It is no `Exception`, so that Hydra's launchers end a whole sweep instead of going on with the next job.
    """

    def __init__(self, signal: int, epoch: int, step: int) -> None:
        self.signal, self.epoch, self.step = signal, epoch, step
        super().__init__(f"stopped at epoch {epoch}, step {step:,}; saved")
