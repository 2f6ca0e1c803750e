"""Weights of the KL term that change with the step.

Durations are given in epochs (fractions are fine) and evaluated at every step. The step may be an int or a tensor: a
tensor stays on its device, so that a captured step sees it change.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

from torch import Tensor
from typing_extensions import override

from vae_train.util.numbers import Number, clamp, cos, sigmoid
from vae_train.util.ranges import Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Range


class BetaSchedule(ABC):
    """A factor on beta, as a function of the step.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
    """

    end = 0.0
    """Epoch from which the factor is constant."""
    peak = 0.0
    """Epoch at which the factor first reaches its maximum."""

    def __init__(self, steps_per_epoch: float) -> None:
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: int | Tensor) -> Number:
        """The factor at `step`, in [0, 1]."""
        return self.at(step / self.steps_per_epoch)

    @abstractmethod
    def at(self, epoch: Number) -> Number:
        """The factor after `epoch` epochs (fractional)."""


class ConstantBeta(BetaSchedule):
    """A constant factor of 1."""

    @override
    def at(self, epoch: Number) -> Number:
        return 1.0


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
        self.end = self.peak = warmup

    @override
    def at(self, epoch: Number) -> Number:
        return self.start + (1 - self.start) * self.risen(clamp(epoch / self.warmup))

    @abstractmethod
    def risen(self, progress: Number) -> Number:
        """The progress from `start` to 1, in [0, 1], after a fraction `progress` of the warm-up."""


class LinearBeta(RisingBeta):
    """From `start` to 1 in a straight line, then 1 (Bowman et al., 2016; Sønderby et al., 2016).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        warmup: see `RisingBeta`.
        start: see `RisingBeta`.
    """

    @override
    def risen(self, progress: Number) -> Number:
        return progress


class RunFractionBeta(BetaSchedule):
    """From `start` to 1 in a straight line over a fraction of the run, then 1; a shorter run rises faster.

    Args:
        steps_per_epoch: see `BetaSchedule`.
        epochs: epochs of the run.
        fraction: fraction of the run until 1 is reached.
        start: the factor at step 0.
    """

    def __init__(
        self,
        steps_per_epoch: float,
        epochs: float,
        fraction: Annotated[float, Range(0, 1, open_low=True)],
        start: Fraction,
    ) -> None:
        super().__init__(steps_per_epoch)
        self.start = start
        self.end = self.peak = fraction * epochs

    @override
    def at(self, epoch: Number) -> Number:
        return self.start + (1 - self.start) * clamp(epoch / self.end)


class CosineBeta(RisingBeta):
    """Half a cosine from `start` to 1, then 1: slow at both ends.

    Args:
        steps_per_epoch: see `BetaSchedule`.
        warmup: see `RisingBeta`.
        start: see `RisingBeta`.
    """

    @override
    def risen(self, progress: Number) -> Number:
        return 0.5 * (1 - cos(math.pi * progress))


class CyclicalBeta(BetaSchedule):
    """`cycles` sawtooth cycles within `period · cycles` epochs, then 1 (Fu et al., 2019, arXiv:1903.10145).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        period: epochs of one cycle.
        cycles: number of cycles.
        ramp: fraction of a cycle in which the factor rises from 0 to 1; it stays 1 in the rest.
    """

    def __init__(self, steps_per_epoch: float, period: PositiveFloat, cycles: PositiveInt, ramp: Decay) -> None:
        super().__init__(steps_per_epoch)
        self.period, self.cycles, self.ramp = period, cycles, ramp
        self.end, self.peak = period * cycles, period * ramp

    @override
    def at(self, epoch: Number) -> Number:
        rising = clamp((epoch / self.period) % 1.0 / self.ramp)
        return clamp(rising + (epoch >= self.period * self.cycles))


class SigmoidBeta(BetaSchedule):
    """1 / (1 + exp(-(epoch - middle) / width)), the logistic annealing of Bowman et al. (2016).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        middle: the epoch at which the factor is ½.
        width: epochs in which the odds grow by a factor of e.
    """

    def __init__(self, steps_per_epoch: float, middle: NonNegativeFloat, width: PositiveFloat) -> None:
        super().__init__(steps_per_epoch)
        self.middle, self.width = middle, width
        self.end = self.peak = middle + 7 * width  # where it is 0.999

    @override
    def at(self, epoch: Number) -> Number:
        # The clamp keeps exp finite in Python's floats; beyond 50 the sigmoid is 0 or 1 in any precision.
        return sigmoid(clamp((epoch - self.middle) / self.width, -50.0, 50.0))


class TwoPhaseBeta(BetaSchedule):
    """`first` until an epoch, then 1.

    Args:
        steps_per_epoch: see `BetaSchedule`.
        until: the epoch at which the second phase begins.
        first: the factor of the first phase.
    """

    def __init__(self, steps_per_epoch: float, until: NonNegativeFloat, first: Fraction) -> None:
        super().__init__(steps_per_epoch)
        self.until, self.first = until, first
        self.end = self.peak = until

    @override
    def at(self, epoch: Number) -> Number:
        return self.first + (1 - self.first) * (epoch >= self.until)
