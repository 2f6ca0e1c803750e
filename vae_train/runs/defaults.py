"""Settings whose default follows the size of the data: the length of a run and its batches."""

import math

from vae_train.runs.config import Config
from vae_train.training.epochs import Epochs

MIN_EPOCHS, MIN_STEPS = 30, 1_500
"""Default length of a run, whichever is longer. Small data needs many epochs."""
BATCH_SIZES = (128, 64, 32, 16)
"""What batch_size= can be by default: the first of them with which an epoch has `MIN_BATCHES` steps."""
MIN_BATCHES = 5


def default_batch_size(num_train: int) -> int:
    """Images per step where batch_size= is null: 128, or fewer if an epoch would have less than `MIN_BATCHES` steps."""
    smallest = min(BATCH_SIZES[-1], num_train)
    return next((size for size in BATCH_SIZES if MIN_BATCHES * size <= num_train), smallest)


def run_epochs(config: Config, num_train: int) -> Epochs:
    """The epochs of a run.

    Args:
        config: the resolved configuration of `vae train`.
        num_train: number of training images.
    """
    trainer = config["trainer"]
    epochs, steps = trainer["epochs"], trainer["steps"]
    batch_size = trainer["batch_size"] or default_batch_size(num_train)
    if steps is not None:
        return Epochs.of_steps(steps, num_train, batch_size)
    if epochs is None:
        epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS * batch_size / num_train))
    return Epochs(epochs, num_train, batch_size)


def with_defaults(config: Config, num_train: int) -> Config:
    """A configuration with the number of epochs and the size of batches filled in, see `run_epochs`."""
    epochs = run_epochs(config, num_train)
    values = {"epochs": epochs.total, "batch_size": epochs.batch_size}
    return config.with_values(values | {f"trainer.{name}": value for name, value in values.items()})
