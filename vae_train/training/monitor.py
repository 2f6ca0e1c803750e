"""Compares validations, for the best epoch, early stopping and plateau schedules."""

import math
from typing import Literal

from vae_train.objective.base import Objective
from vae_train.training.epochs import Epochs
from vae_train.training.lr import LearningRate

Monitor = Literal["objective", "elbo", "loss"]

ROUNDING = 1e-6
"""Rounding error of a number of epochs, in steps."""


class Judge:
    """Compares validations.

    An objective with schedules is evaluated with its weights at the end of the run, or with the largest weights
    for cyclical schedules that the run cuts short. For an adaptive objective, whose losses in different epochs are not
    comparable, the ELBO is used instead, or the distortion for models without an ELBO.

    Args:
        monitor: "objective" as above; "elbo" (beta = 1) or "loss" (with the current weights).
        objective: what is minimised.
        epochs: the epochs of the run.
    """

    def __init__(self, monitor: Monitor, objective: Objective, epochs: Epochs) -> None:
        last = epochs.last_step
        self.objective, self.settled_step = objective, math.ceil(objective.settled_step - ROUNDING)
        self.step = last if self.settled_step <= last else min(last, math.ceil(objective.peak_step))
        """The step whose weights the objective is evaluated with."""
        self.monitor: Monitor = "elbo" if monitor == "objective" and objective.is_adaptive else monitor

    def settled(self, step: int) -> bool:
        """Whether the schedules of the objective have ended, so that patience begins."""
        return step >= self.settled_step

    def by(self, step: int, bounded: bool = True) -> str:
        """Describes the value by which the validation after `step` updates is compared.

        Args:
            step: number of updates.
            bounded: whether the model has an ELBO.
        """
        weights = self.objective.weights(self.step)
        name = {
            "objective": f"validation objective {_named(weights)}" if weights else "validation objective",
            "elbo": "validation ELBO (beta = 1)" if bounded else "validation distortion",
            "loss": "validation loss",
        }[self.monitor]
        return name if self.settled(step) else f"{name}, before the schedules end"

    def value(self, row: dict[str, float], final: dict[str, float]) -> float:
        """Returns the value to compare; lower is better.

        Args:
            row: the metrics of a validation.
            final: the same with the weights of `step`.
        """
        if self.monitor == "elbo":
            return -row["elbo"] if "elbo" in row else row["distortion"]
        return final[self.objective.monitored] if self.monitor == "objective" else row["loss"]


def schedule_notes(objective: Objective, lr_schedule: LearningRate, epochs: Epochs, monitor: Monitor) -> list[str]:
    """Notes about schedules that outlast the run, and about adaptive objectives."""
    total, last, warmup = epochs.total, epochs.last_step, lr_schedule.warmup
    length = objective.settled_step * epochs.batch_size / epochs.num_images
    cut = f"the objective's schedules take {length:.3g} epochs, but the run has {total}; it ends "
    cut += f"{_named(objective.weights(last))}, and patience and plateau schedules have no effect"
    slow = f"lr_schedule.warmup={warmup:g} exceeds the {total} epochs; they end at {total / (warmup or 1):.3g} of lr"
    adapts = "the objective is adaptive, so losses of different epochs are not comparable; the best epoch is that with "
    adapts += "the best validation ELBO, or distortion without an ELBO"
    is_cut, is_adaptive = objective.settled_step - ROUNDING > last, objective.is_adaptive and monitor == "objective"
    notes = (cut, is_cut), (slow, warmup > total), (adapts, is_adaptive)
    return [note for note, applies in notes if applies]


def _named(weights: dict[str, float]) -> str:
    """Formats weights, for instance "at beta = 4 and capacity = 25"."""
    return "at " + " and ".join(f"{name} = {value:.3g}" for name, value in weights.items())
