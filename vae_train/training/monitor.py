"""How validations are compared: the best epoch, patience and plateau schedules follow one value."""

import math
from typing import Literal

from vae_train.objective.base import Objective
from vae_train.training.epochs import Epochs
from vae_train.training.lr import LearningRate

Monitor = Literal["objective", "elbo", "loss"]

ROUNDING = 1e-6
"""Steps by which a number of epochs may be rounded."""


class Judge:
    """Compares validations.

    An objective with schedules is judged with the weights that it has at the end of the run, or with the largest ones
    for cyclical weights that the run cuts short. One that adapts is judged by the ELBO, or by the distortion without
    a bound: its losses of different epochs do not compare.

    Args:
        monitor: "objective" as above; "elbo" (beta = 1) or "loss" (with the weights of the moment).
        objective: what is minimised.
        epochs: the epochs of the run.
    """

    def __init__(self, monitor: Monitor, objective: Objective, epochs: Epochs) -> None:
        last = epochs.last_step
        self.objective, self.settled_step = objective, math.ceil(objective.settled_step - ROUNDING)
        self.step = last if self.settled_step <= last else min(last, math.ceil(objective.peak_step))
        """The step whose weights an objective is judged with."""
        self.monitor: Monitor = "elbo" if monitor == "objective" and objective.is_adaptive else monitor

    def settled(self, step: int) -> bool:
        """Whether the weights of the objective have stopped moving, so that the record and patience begin."""
        return step >= self.settled_step

    def by(self, step: int, bounded: bool = True) -> str:
        """Describes what the validation after `step` updates is compared by.

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
            row: a validation.
            final: the same with the weights of `step`.
        """
        if self.monitor == "elbo":
            return -row["elbo"] if "elbo" in row else row["distortion"]
        return (final if self.monitor == "objective" else row)["loss"]


def schedule_notes(objective: Objective, lr_schedule: LearningRate, epochs: Epochs, monitor: Monitor) -> list[str]:
    """Says which schedules outlast the run, and that an adaptive objective is not judged by its losses."""
    total, last, warmup = epochs.total, epochs.last_step, lr_schedule.warmup
    length = objective.settled_step * epochs.batch_size / epochs.num_images
    cut = f"the objective's schedules take {length:.3g} epochs, but the run has {total}: it ends "
    cut += f"{_named(objective.weights(last))}, and patience and plateau schedules never count"
    slow = f"lr_schedule.warmup={warmup:g} exceeds the {total} epochs: it ends at {total / (warmup or 1):.3g} of lr"
    adapts = "the objective adapts, so its losses do not compare: the best epoch is that of the validation ELBO, "
    adapts += "or of the distortion without one"
    is_cut, is_adaptive = objective.settled_step - ROUNDING > last, objective.is_adaptive and monitor == "objective"
    notes = (cut, is_cut), (slow, warmup > total), (adapts, is_adaptive)
    return [note for note, applies in notes if applies]


def _named(weights: dict[str, float]) -> str:
    """Formats weights, for instance "at beta = 4 and capacity = 25"."""
    return "at " + " and ".join(f"{name} = {value:.3g}" for name, value in weights.items())
