"""How long a run trains: in epochs, in steps, or by the size of the data."""

import math

from vae_train.runs.config import Config
from vae_train.training.epochs import Epochs

MIN_EPOCHS, MIN_STEPS = 30, 3_000
"""What a run has without epochs= and steps=, whichever is longer: small data needs many epochs."""


def with_length(config: Config, num_train: int) -> Config:
    """A configuration that says how many epochs the run has, the last of which may be cut short by its steps.

    Args:
        config: the resolved configuration of `vae train`.
        num_train: number of training images.
    """
    trainer = config["trainer"]
    epochs, steps, batch_size = (trainer[name] for name in ("epochs", "steps", "batch_size"))
    if steps is not None:
        epochs = Epochs.of_steps(steps, num_train, batch_size).total
    elif epochs is None:
        epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS * batch_size / num_train))
    return config.with_values({"epochs": epochs, "trainer.epochs": epochs})


def run_epochs(config: Config, num_train: int) -> Epochs:
    """The epochs of a run of a configuration that says how many it has."""
    trainer = config["trainer"]
    return Epochs(trainer["epochs"], num_train, trainer["batch_size"], trainer["steps"])
