"""The part of a rank other than 0 in a training: it computes, and writes nothing."""

from pathlib import Path

from vae_train.data.session import DataSession
from vae_train.runs.build import Builder
from vae_train.runs.packages import make_importable
from vae_train.runs.ranks import begin, received_configuration
from vae_train.runs.train import assemble_run
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.ranks import Ranks


def follow(ranks: Ranks) -> None:
    """Trains what rank 0 trains.

    Raises:
        Dismissed: rank 0 ended before the training began.
        UsageError: the data or the device of this rank is not that of rank 0.
        RunError: training failed.
        Stopped: a signal arrived at a rank.
    """
    config, allow = received_configuration(ranks)
    make_importable(allow)
    training, _ = assemble_run(config, DataSession(), Builder(allow), ranks)
    state = begin(ranks, training, None, "")
    training.trainer.fit(training.learner, training.data, Checkpoints(Path()), [], state)
