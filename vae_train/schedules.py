"""Values that change with the step: weights of the KL term and learning rates.

A beta schedule is a function of the step with values in [0, 1]; a learning-rate schedule multiplies the base rate.
Durations are given in epochs (fractions are fine), since that is how people think, and are evaluated at every step. The
step may be an int or a tensor: a tensor stays on its device, so that a captured step sees it move.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vae_train.ranges import Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt

Number = int | float | Tensor


def _clamp(x: Number, low: float = 0.0, high: float = 1.0) -> Number:
    return x.clamp(low, high) if isinstance(x, Tensor) else min(max(x, low), high)


def _cos(x: Number) -> Number:
    return torch.cos(x) if isinstance(x, Tensor) else math.cos(x)


def _sigmoid(x: Number) -> Number:
    return torch.sigmoid(x) if isinstance(x, Tensor) else 1 / (1 + math.exp(-x))


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


class ConstantBeta(BetaSchedule):
    """1 from the first step on."""

    def at(self, epoch: Number) -> Number:
        """See `BetaSchedule.at`."""
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

    def at(self, epoch: Number) -> Number:
        """See `BetaSchedule.at`."""
        return self.start + (1 - self.start) * self.risen(_clamp(epoch / self.warmup))

    @abstractmethod
    def risen(self, progress: Number) -> Number:
        """How much of the way is done, in [0, 1], when `progress` of the warm-up is over."""


class LinearBeta(RisingBeta):
    """From `start` to 1 in a straight line, then 1 (Bowman et al., 2016; Sønderby et al., 2016).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        warmup: see `RisingBeta`.
        start: see `RisingBeta`.
    """

    def risen(self, progress: Number) -> Number:
        """See `RisingBeta.risen`."""
        return progress


class CosineBeta(RisingBeta):
    """Half a cosine from `start` to 1, then 1: slow at both ends.

    Args:
        steps_per_epoch: see `BetaSchedule`.
        warmup: see `RisingBeta`.
        start: see `RisingBeta`.
    """

    def risen(self, progress: Number) -> Number:
        """See `RisingBeta.risen`."""
        return 0.5 * (1 - _cos(math.pi * progress))


class CyclicalBeta(BetaSchedule):
    """`cycles` saw teeth within `period · cycles` epochs, then 1 (Fu et al., 2019).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        period: epochs of one cycle.
        cycles: how many cycles there are.
        ramp: the share of a cycle in which the factor rises from 0 to 1; in the rest it stays 1.
    """

    def __init__(self, steps_per_epoch: float, period: PositiveFloat, cycles: PositiveInt, ramp: Decay) -> None:
        super().__init__(steps_per_epoch)
        self.period, self.cycles, self.ramp = period, cycles, ramp

    def at(self, epoch: Number) -> Number:
        """See `BetaSchedule.at`."""
        rising = _clamp((epoch / self.period) % 1.0 / self.ramp)
        over = epoch >= self.period * self.cycles
        return torch.where(over, 1.0, rising) if isinstance(over, Tensor) else (1.0 if over else rising)


class SigmoidBeta(BetaSchedule):
    """1 / (1 + exp(-(epoch - middle) / width)), the logistic annealing of Bowman et al. (2016).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        middle: the epoch at which the factor is ½.
        width: epochs in which the odds grow by e.
    """

    def __init__(self, steps_per_epoch: float, middle: NonNegativeFloat, width: PositiveFloat) -> None:
        super().__init__(steps_per_epoch)
        self.middle, self.width = middle, width

    def at(self, epoch: Number) -> Number:
        """See `BetaSchedule.at`."""
        # The clamp keeps exp finite in Python's floats; beyond 50 the sigmoid is 0 or 1 in any precision.
        return _sigmoid(_clamp((epoch - self.middle) / self.width, -50.0, 50.0))


class TwoPhaseBeta(BetaSchedule):
    """`first` until an epoch, 1 from then on: mostly an autoencoder that becomes a VAE.

    Args:
        steps_per_epoch: see `BetaSchedule`.
        until: the epoch at which the second phase begins.
        first: the factor of the first phase.
    """

    def __init__(self, steps_per_epoch: float, until: NonNegativeFloat, first: Fraction) -> None:
        super().__init__(steps_per_epoch)
        self.until, self.first = until, first

    def at(self, epoch: Number) -> Number:
        """See `BetaSchedule.at`."""
        begun = epoch >= self.until
        if isinstance(begun, Tensor):
            return self.first + (1 - self.first) * begun.to(torch.get_default_dtype())
        return 1.0 if begun else self.first


class LearningRate(ABC):
    """A factor on the learning rate: a linear warm-up, then whatever the subclass says.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
        epochs: epochs in the whole run.
        warmup: epochs in which the factor rises from 0 in a straight line.
    """

    def __init__(self, steps_per_epoch: float, epochs: float, warmup: NonNegativeFloat) -> None:
        self.steps_per_epoch, self.epochs, self.warmup = steps_per_epoch, epochs, warmup

    def __call__(self, step: int | Tensor) -> Number:
        """The factor for the update that turns `step` updates into `step + 1`."""
        rising = _clamp((step + 1) / (self.warmup * self.steps_per_epoch)) if self.warmup else 1.0
        return rising * self.at(_clamp(step / self.steps_per_epoch - self.warmup, 0.0, math.inf))

    @abstractmethod
    def at(self, epoch: Number) -> Number:
        """The factor `epoch` epochs (fractional) after the warm-up."""

    def observe(self, value: float) -> None:  # noqa: B027  (only some schedules listen)
        """Told of every validation: `value` is what the run monitors, lower is better."""

    def state_dict(self) -> dict[str, float]:
        """What `observe` has left behind."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:  # noqa: B027
        """The inverse of `state_dict`."""


class ConstantRate(LearningRate):
    """1."""

    def at(self, epoch: Number) -> Number:
        """See `LearningRate.at`."""
        return 1.0


class FallingRate(LearningRate):
    """From 1 to `final` at the end of the run.

    Args:
        steps_per_epoch: see `LearningRate`.
        epochs: see `LearningRate`.
        warmup: see `LearningRate`.
        final: the factor at the end.

    Raises:
        ValueError: the warm-up takes the whole run.
    """

    def __init__(self, steps_per_epoch: float, epochs: float, warmup: NonNegativeFloat, final: Fraction) -> None:
        super().__init__(steps_per_epoch, epochs, warmup)
        if warmup >= epochs:
            raise ValueError(f"warmup is {warmup:g} epochs, which leaves none of the run's {epochs:g} for the descent")
        self.final = final

    def at(self, epoch: Number) -> Number:
        """See `LearningRate.at`."""
        return self.fallen(_clamp(epoch / (self.epochs - self.warmup)))

    @abstractmethod
    def fallen(self, progress: Number) -> Number:
        """The factor when `progress` of the run behind the warm-up is over, a number in [0, 1]."""


class CosineRate(FallingRate):
    """Half a cosine from 1 to `final` at the end of the run (Loshchilov & Hutter, 2017, eq. 5, without restarts).

    Args:
        steps_per_epoch: see `LearningRate`.
        epochs: see `LearningRate`.
        warmup: see `LearningRate`.
        final: the factor at the end.
    """

    def fallen(self, progress: Number) -> Number:
        """See `FallingRate.fallen`."""
        return self.final + (1 - self.final) * 0.5 * (1 + _cos(math.pi * progress))


class ExponentialRate(FallingRate):
    """A geometric descent from 1 to `final` at the end of the run: the same share of the rate is lost in every epoch.

    Args:
        steps_per_epoch: see `LearningRate`.
        epochs: see `LearningRate`.
        warmup: see `LearningRate`.
        final: the factor at the end.
    """

    def __init__(self, steps_per_epoch: float, epochs: float, warmup: NonNegativeFloat, final: Decay) -> None:
        super().__init__(steps_per_epoch, epochs, warmup, final)

    def fallen(self, progress: Number) -> Number:
        """See `FallingRate.fallen`."""
        return self.final**progress


class StepRate(LearningRate):
    """Multiplied by `gamma` after every `every` epochs.

    Args:
        steps_per_epoch: see `LearningRate`.
        epochs: see `LearningRate`.
        warmup: see `LearningRate`.
        every: epochs between two changes.
        gamma: the factor of one change.
    """

    def __init__(
        self, steps_per_epoch: float, epochs: float, warmup: NonNegativeFloat, every: PositiveFloat, gamma: Fraction
    ) -> None:
        super().__init__(steps_per_epoch, epochs, warmup)
        self.every, self.gamma = every, gamma

    def at(self, epoch: Number) -> Number:
        """See `LearningRate.at`."""
        return self.gamma ** (epoch // self.every)


class PlateauRate(LearningRate):
    """Multiplied by `factor` whenever `patience` validations in a row brought nothing better.

    Args:
        steps_per_epoch: see `LearningRate`.
        epochs: see `LearningRate`.
        warmup: see `LearningRate`.
        factor: the factor of one change.
        patience: validations without improvement that are waited for.
        threshold: how much lower a value must be to count as better.
        lowest: the product of all factors stays at least this.
    """

    def __init__(
        self,
        steps_per_epoch: float,
        epochs: float,
        warmup: NonNegativeFloat,
        factor: Decay,
        patience: PositiveInt,
        threshold: NonNegativeFloat,
        lowest: Fraction,
    ) -> None:
        super().__init__(steps_per_epoch, epochs, warmup)
        self.factor, self.patience, self.threshold, self.lowest = factor, patience, threshold, lowest
        self._scale, self._best, self._waited = 1.0, math.inf, 0.0

    def at(self, epoch: Number) -> Number:
        """See `LearningRate.at`."""
        return self._scale

    def observe(self, value: float) -> None:
        """See `LearningRate.observe`."""
        if value < self._best - self.threshold:
            self._best, self._waited = value, 0.0
            return
        self._waited += 1
        if self._waited >= self.patience:
            self._scale, self._waited = max(self._scale * self.factor, self.lowest), 0.0

    def state_dict(self) -> dict[str, float]:
        """See `LearningRate.state_dict`."""
        return {"scale": self._scale, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """See `LearningRate.load_state_dict`."""
        self._scale, self._best, self._waited = state["scale"], state["best"], state["waited"]
