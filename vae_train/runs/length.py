"""The length of a run: in epochs, in steps, or by the size of the data."""

import math

from vae_train.runs.config import Config
from vae_train.training.epochs import Epochs

MIN_EPOCHS, MIN_STEPS = 30, 3_000
"""Default length of a run, whichever is longer. Small data needs many epochs."""


def run_epochs(config: Config, num_train: int) -> Epochs:
    """The epochs of a run.

    Args:
        config: the resolved configuration of `vae train`.
        num_train: number of training images.
    """
    trainer = config["trainer"]
    epochs, steps, batch_size = (trainer[name] for name in ("epochs", "steps", "batch_size"))
    if steps is not None:
        return Epochs.of_steps(steps, num_train, batch_size)
    if epochs is None:
        epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS * batch_size / num_train))
    return Epochs(epochs, num_train, batch_size)


def with_length(config: Config, num_train: int) -> Config:
    """A configuration with the number of epochs filled in, see `run_epochs`."""
    epochs = run_epochs(config, num_train).total
    return config.with_values({"epochs": epochs, "trainer.epochs": epochs})
