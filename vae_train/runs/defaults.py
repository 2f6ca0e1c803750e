"""Settings whose default follows the size of the data: the length of a run and its batches."""

import math

from vae_train.batch import DataFacts
from vae_train.runs.config import Config
from vae_train.training.epochs import Epochs

MIN_EPOCHS, MIN_STEPS = 30, 1_500
"""Default length of a run, whichever is longer. Small data needs many epochs."""
BATCH_SIZES = (128, 64, 32, 16)
"""What batch_size= can be by default: the first of them with which an epoch has `MIN_BATCHES` steps."""
MIN_BATCHES = 5

LARGE_IMAGE, LARGE_IMAGE_BATCH = 3 * 64 * 64, 32
"""Values of an image from which on batches have at most so many images: in the first minutes, more steps help most."""


def default_batch_size(facts: DataFacts) -> int:
    """Images per step where batch_size= is null.

    It is 128, or 32 for large images, or fewer if an epoch would have less than `MIN_BATCHES` steps.
    """
    is_large = facts.data_shape[1] > 1 and math.prod(facts.data_shape) >= LARGE_IMAGE
    allowed = [size for size in BATCH_SIZES if not is_large or size <= LARGE_IMAGE_BATCH]
    smallest = min(allowed[-1], facts.num_train)
    return next((size for size in allowed if MIN_BATCHES * size <= facts.num_train), smallest)


def run_epochs(config: Config, facts: DataFacts) -> Epochs:
    """The epochs of a run.

    Args:
        config: the resolved configuration of `vae train`.
        facts: facts about the training images.
    """
    trainer, num_train = config["trainer"], facts.num_train
    epochs, steps = trainer["epochs"], trainer["steps"]
    batch_size = trainer["batch_size"] or default_batch_size(facts)
    if steps is not None:
        return Epochs.of_steps(steps, num_train, batch_size)
    if epochs is None:
        epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS * batch_size / num_train))
    return Epochs(epochs, num_train, batch_size)


def with_defaults(config: Config, facts: DataFacts) -> Config:
    """A configuration with the number of epochs and the size of batches filled in, see `run_epochs`."""
    epochs = run_epochs(config, facts)
    values = {"epochs": epochs.total, "batch_size": epochs.batch_size}
    return config.with_values(values | {f"trainer.{name}": value for name, value in values.items()})
