"""The settings that a search varies, and the values between which it chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from optuna.trial import Trial


class Interval(NamedTuple):
    """A setting that takes numbers between two ends, which are included."""

    key: str
    low: float
    high: float
    log: bool = False
    """Whether the logarithm of the number is uniform, instead of the number."""
    whole: bool = False
    """Whether it takes whole numbers only."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Both ends, as typed."""
        return number_text(self.low), number_text(self.high)

    def choose(self, trial: Trial) -> str:
        """The value of a trial, as typed."""
        if self.whole:
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log))
        return number_text(trial.suggest_float(self.key, self.low, self.high, log=self.log))


class Choices(NamedTuple):
    """A setting or a group that takes one of several values."""

    key: str
    texts: tuple[str, ...]
    """The values, as typed."""

    def choose(self, trial: Trial) -> str:
        """The value of a trial, as typed."""
        return str(trial.suggest_categorical(self.key, self.texts))


Axis = Interval | Choices


def number_text(value: float) -> str:
    """A number as typed: whole numbers without a fraction, since settings may need them."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def choose(axes: Sequence[Axis], trial: Trial) -> dict[str, str]:
    """The values of a trial by setting, as typed. Values that were chosen before remain."""
    return {axis.key: axis.choose(trial) for axis in axes}
