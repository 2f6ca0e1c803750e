"""Learning-rate schedules: factors on the base rate, as functions of the step.

Durations are given in epochs (fractions are fine) and evaluated at every step. The step may be an int or a tensor: a
tensor stays on its device, so that a captured step sees it move.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch import Tensor
from typing_extensions import override

from vae_train.util.numbers import Number, clamp, cos
from vae_train.util.ranges import Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


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
        rising = clamp((step + 1) / (self.warmup * self.steps_per_epoch)) if self.warmup else 1.0
        return rising * self.at(clamp(step / self.steps_per_epoch - self.warmup, 0.0, math.inf))

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

    @override
    def at(self, epoch: Number) -> Number:
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

    @override
    def at(self, epoch: Number) -> Number:
        return self.fallen(clamp(epoch / (self.epochs - self.warmup)))

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

    @override
    def fallen(self, progress: Number) -> Number:
        return self.final + (1 - self.final) * 0.5 * (1 + cos(math.pi * progress))


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

    @override
    def fallen(self, progress: Number) -> Number:
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

    @override
    def at(self, epoch: Number) -> Number:
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
