"""The state of a training: what a checkpoint contains."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vae_train.training.early_stopping import Stopping
from vae_train.training.learner import Learner
from vae_train.training.meter import Meter


@dataclass
class Progress:
    """How far a run is, and which validation was the best."""

    step: int = 0
    """Number of updates."""
    best: float = math.inf
    """The lowest monitored value of all validations."""
    best_elbo: float = -math.inf
    """The validation ELBO that belongs to it, in nats."""
    best_epoch: int = 0

    def observe(self, epoch: int, value: float, elbo: float) -> None:
        """Takes note of a validation."""
        if value < self.best:
            self.best, self.best_elbo, self.best_epoch = value, elbo, epoch


class TrainingState:
    """Everything that a resumed training continues from.

    Args:
        learner: takes the steps.
        stopping: decides when training ends.
    """

    def __init__(self, learner: Learner, stopping: Stopping) -> None:
        self.learner, self.stopping = learner, stopping
        self.progress, self.meter = Progress(), Meter()

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data and tensors."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return {
            **self.learner.state_dict(),
            "seed": self.learner.seed,
            "progress": asdict(self.progress),
            "meter": self.meter.state_dict(),
            "stopping": self.stopping.state_dict(),
            # Nothing of this package draws from the global generators; a library that a component uses may.
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        self.learner.load_state_dict(state)
        self.progress = Progress(**state["progress"])
        self.meter.load_state_dict(state["meter"])
        self.stopping.load_state_dict(state["stopping"])
        torch.set_rng_state(state["random"]["cpu"].cpu())
        cuda = state["random"]["cuda"]
        if self.learner.device.type == "cuda" and len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([generator.cpu() for generator in cuda])
