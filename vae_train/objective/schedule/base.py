"""Weights of the KL term that change with the step.

Durations are given in epochs (fractions are fine) and evaluated at every step. The step may be an int or a tensor: a
tensor stays on its device, so that a captured step sees it change.
"""

from abc import ABC, abstractmethod

from torch import Tensor
from typing_extensions import override

from vae_train.util.numbers import Number, clamp
from vae_train.util.ranges import Fraction, PositiveFloat


class BetaSchedule(ABC):
    """A factor on beta, as a function of the step.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
    """

    def __init__(self, steps_per_epoch: float) -> None:
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: int | Tensor) -> Number:
        """The factor at `step`, in [0, 1]."""
        return self.at(step / self.steps_per_epoch)

    @abstractmethod
    def at(self, epoch: Number) -> Number:
        """The factor after `epoch` epochs (fractional)."""


class RisingBeta(BetaSchedule):
    """From `start` to 1, then 1.

    Args:
        steps_per_epoch: see `BetaSchedule`.
        warmup: epochs until 1 is reached.
        start: the factor at step 0.
    """

    def __init__(self, steps_per_epoch: float, warmup: PositiveFloat, start: Fraction) -> None:
        super().__init__(steps_per_epoch)
        self.warmup, self.start = warmup, start

    @override
    def at(self, epoch: Number) -> Number:
        return self.start + (1 - self.start) * self.risen(clamp(epoch / self.warmup))

    @abstractmethod
    def risen(self, progress: Number) -> Number:
        """The share of the way from `start` to 1, in [0, 1], after the share `progress` of the warm-up."""
