"""Learning-rate schedules: factors on the base learning rate as functions of the step.

Durations are in epochs, possibly fractional, and evaluated at every step. The step is an int or a tensor. A tensor
stays on its device, so that a captured step sees its current value.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from vae_train.util.numbers import Number, clamp, cos
from vae_train.util.ranges import Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class LearningRate(ABC):
    """A factor on the learning rate: a linear warm-up, followed by the schedule of the subclass.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
        epochs: epochs of the run.
        warmup: epochs in which the factor rises linearly from 0.
    """

    steps_per_epoch: float
    epochs: float
    warmup: NonNegativeFloat

    def __call__(self, step: int | Tensor) -> Number:
        """The factor for the update that turns `step` updates into `step + 1`."""
        warmed_up = clamp((step + 1) / (self.warmup * self.steps_per_epoch)) if self.warmup else 1.0
        return warmed_up * self.at(clamp(step / self.steps_per_epoch - self.warmup, 0.0, math.inf))

    @abstractmethod
    def at(self, epoch: Number) -> Number:
        """The factor `epoch` epochs (fractional) after the warm-up."""

    def observe(self, value: float) -> None:  # noqa: B027  (most schedules ignore validations)
        """Receives the monitored value of a validation, once the objective's schedules have ended; lower is better."""

    def state_dict(self) -> dict[str, float]:
        """The state that `observe` changes, as plain data."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:  # noqa: B027
        """Restores a state."""


class ConstantRate(LearningRate):
    """A constant learning rate after the warm-up."""

    @override
    def at(self, epoch: Number) -> Number:
        return 1.0


@dataclass
class DecayingRate(LearningRate):
    """A factor that falls from 1 to `final` at the end of the run.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
        epochs: epochs of the run.
        warmup: epochs in which the factor rises linearly from 0.
        final: the factor at the end of the run.

    Raises:
        ValueError: the warm-up takes the whole run.
    """

    final: Fraction

    def __post_init__(self) -> None:
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup={self.warmup:g} leaves no epoch of epochs={self.epochs:g} for the decay")

    @override
    def at(self, epoch: Number) -> Number:
        return self.decayed(clamp(epoch / (self.epochs - self.warmup)))

    @abstractmethod
    def decayed(self, progress: Number) -> Number:
        """The factor after a fraction `progress` in [0, 1] of the time that follows the warm-up."""


class CosineRate(DecayingRate):
    """Half a cosine from 1 to `final`, eq. 5 of "SGDR" (Loshchilov & Hutter, 2017, arXiv:1608.03983), no restarts.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
        epochs: epochs of the run.
        warmup: epochs in which the factor rises linearly from 0.
        final: the factor at the end of the run.
    """

    @override
    def decayed(self, progress: Number) -> Number:
        return self.final + (1 - self.final) * 0.5 * (1 + cos(math.pi * progress))


@dataclass
class ExponentialRate(DecayingRate):
    """An exponential decay from 1 to `final`: every epoch multiplies the learning rate by the same factor.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
        epochs: epochs of the run.
        warmup: epochs in which the factor rises linearly from 0.
        final: the factor at the end of the run.
    """

    final: Decay

    @override
    def decayed(self, progress: Number) -> Number:
        return self.final**progress


@dataclass
class StepRate(LearningRate):
    """Multiplies the learning rate by `gamma` every `every` epochs.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
        epochs: epochs of the run.
        warmup: epochs in which the factor rises linearly from 0.
        every: epochs between two reductions.
        gamma: the factor of each reduction.
    """

    every: PositiveFloat
    gamma: Fraction

    @override
    def at(self, epoch: Number) -> Number:
        return self.gamma ** (epoch // self.every)


@dataclass
class PlateauRate(LearningRate):
    """Multiplies the learning rate by `factor` after `patience` validations in a row without improvement.

    Args:
        steps_per_epoch: optimiser steps in an epoch (may be fractional).
        epochs: epochs of the run.
        warmup: epochs in which the factor rises linearly from 0.
        factor: the factor of each reduction.
        patience: validations without improvement before a reduction.
        threshold: smallest decrease of the monitored value that counts as an improvement.
        lowest: lower bound of the product of all factors.
    """

    factor: Decay
    patience: PositiveInt
    threshold: NonNegativeFloat
    lowest: Fraction

    def __post_init__(self) -> None:
        self._scale, self._best, self._waited = 1.0, math.inf, 0.0

    @override
    def at(self, epoch: Number) -> Number:
        return self._scale

    @override
    def observe(self, value: float) -> None:
        if value < self._best - self.threshold:
            self._best, self._waited = value, 0.0
            return
        self._waited += 1
        if self._waited >= self.patience:
            self._scale, self._waited = max(self._scale * self.factor, self.lowest), 0.0

    @override
    def state_dict(self) -> dict[str, float]:
        return {"scale": self._scale, "best": self._best, "waited": self._waited}

    @override
    def load_state_dict(self, state: dict[str, float]) -> None:
        self._scale, self._best, self._waited = state["scale"], state["best"], state["waited"]
