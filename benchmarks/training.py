"""Builds trainings and data sets of vae_train from overrides.

The other benchmarks of vae_train use this module alone, so that only this one depends on how the package is wired.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from vae_train.batch import Batch
from vae_train.cli.commands.train import Settings, check, run_config
from vae_train.cli.jobs import Job
from vae_train.cli.overrides import compose_jobs
from vae_train.data.session import DataSession
from vae_train.data.storage.listing import list_folder
from vae_train.data.stream import Stream, evaluation_batches
from vae_train.runs.build import Builder, assemble, build_model, load_data
from vae_train.runs.config import Config
from vae_train.runs.tracking import logger_nodes
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers.files import Files
from vae_train.util.errors import UsageError
from vae_train.util.runtime import prepare, resolve_device


class Training:
    """A training as `vae train` builds it, of which single steps can be taken.

    Args:
        config: the configuration of `vae train`.
    """

    def __init__(self, config: Config) -> None:
        self.config, device = config, resolve_device(config["device"])
        prepare(config["threads"], config["precision"])
        self.data, self.learner, self.trainer = assemble(config, DataSession(), device, Builder())
        self.step = 0
        self.restart_stream()

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.learner.model

    @property
    def execution(self) -> str:
        """How steps are executed: eager, compile or graph."""
        return self.runner.mode

    def restart_stream(self) -> None:
        """Starts a new stream of batches, as every call of `fit` does."""
        batch_size, device = self.trainer.batch_size, self.learner.device
        self.stream = Stream(self.data.training(), batch_size, seed=self.config["seed"], device=device)
        self.runner = self.trainer.runner(self.learner, self.stream)

    def steps(self, count: int) -> float:
        """Takes steps and returns their mean loss; scalars are copied from the device as often as the trainer does."""
        total, left, pending = 0.0, count, list[torch.Tensor]()
        while left:
            limit = min(left, self.trainer.log_every - self.step % self.trainer.log_every)
            names, rows = self.runner(self.step, limit)
            pending.append(rows)
            self.step, left = self.step + len(rows), left - len(rows)
            if not left or self.step % self.trainer.log_every == 0:
                total += torch.cat(pending)[:, names.index("loss")].sum().item()
                pending = []
        return total / count

    def validate(self) -> None:
        """Evaluates the validation split."""
        valid = self.data.split("valid")
        assert valid is not None
        for start, batch in evaluation_batches(valid, self.trainer.eval_batch_size, self.learner.device):
            self.learner.evaluate(batch, start, self.step)

    def fit(self, epochs: int, folder: Path) -> None:
        """Trains for some epochs and writes what `vae train` writes into a folder.

        Args:
            epochs: how many.
            folder: an empty folder.
        """
        self.trainer.epochs = epochs
        nodes = logger_nodes(self.config).values()
        loggers = [Files(folder), *(Builder().build(node, folder=folder / "tensorboard", step=0) for node in nodes)]
        self.trainer.fit(self.learner, self.data, Checkpoints(folder), loggers)
        for logger in loggers:
            logger.close()


def compose_config(overrides: Sequence[str]) -> Config:
    """The configuration of `vae train` with these overrides."""
    return run_config(_job(overrides))


def checked_config(overrides: Sequence[str]) -> Config:
    """The configuration of `vae train` with these overrides, after the checks of the command."""
    job = _job(overrides)
    if errors := check(job.settings, job):
        raise UsageError(errors)
    return run_config(job)


def _job(overrides: Sequence[str]) -> Job:
    jobs, errors = compose_jobs("train", overrides, Settings)
    if errors:
        raise UsageError(errors)
    return jobs[0]


class FolderReader:
    """The batches of an image folder, all of whose images are for training.

    Args:
        overrides: settings of the data.
        root: the folder.
        batch_size: B.
        threads: PyTorch's threads.
    """

    def __init__(self, overrides: Sequence[str], root: str, batch_size: int, threads: int) -> None:
        prepare(threads)
        config = compose_config(overrides)
        device = resolve_device(config["device"])
        data = load_data(config, DataSession(), device, Builder())
        unreadable = {name for name, _ in data.bad_files}
        self.names = [entry.name for entry in list_folder(root).entries if entry.name not in unreadable]
        """Files relative to the folder, in the order of the images."""
        assert len(self.names) == data.facts.num_train
        self.stream = Stream(data.training(), batch_size, seed=0, device=device)

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self.stream.batch(step)

    def indices(self, step: int) -> torch.Tensor:
        """The numbers of the images of a batch, with shape `(B,)`, on the CPU."""
        return self.stream.index(step).cpu()

    def close(self) -> None:
        """Ends the processes that prefetch."""
        self.stream.close()


class DataSummary(NamedTuple):
    """Facts about the data, and how long it took to open it."""

    seconds: float
    num_train: int
    shape: tuple[int, ...]
    classes: int | None


def open_dataset(overrides: Sequence[str], threads: int) -> DataSummary:
    """Opens the data of `vae train` with these overrides; composing them is not timed."""
    prepare(threads)
    config = compose_config(overrides)
    start = time.perf_counter()
    facts = load_data(config, DataSession(), resolve_device(config["device"]), Builder()).facts
    return DataSummary(time.perf_counter() - start, facts.num_train, facts.data_shape, facts.classes)


class ImportanceSampling:
    """The importance-weighted estimate of `vae eval`, with initial weights.

    Args:
        overrides: settings of the model.
        images: uint8 array of bits with shape `(N, 28, 28)`.
        device: "cpu" or "cuda".
        threads: PyTorch's threads.
    """

    def __init__(self, overrides: Sequence[str], images: np.ndarray, device: str, threads: int) -> None:
        # Imported here, since the module is imported by the measurement of the start-up of `vae train`.
        from vae_train.evaluation.metrics.nll import IMAGES_PER_PASS, samples_per_pass, seconds_per_sample

        prepare(threads)
        self.device, self._seconds_per_sample = torch.device(device), seconds_per_sample
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            np.save(path, images)
            split = ["data=arrays", f"data.path={path}", "data.levels=2", "data.valid=0", "data.test=0"]
            config = compose_config([*split, *overrides, f"device={device}"])
            data = load_data(config, DataSession(), self.device, Builder())
        self.images = data.training()
        self.model = build_model(config, data.facts, self.device, Builder()).eval()
        self.num_images = IMAGES_PER_PASS
        self.chunk = samples_per_pass(self.model, self.images)
        """Samples of every image in one pass."""

    def seconds_per_sample(self) -> float:
        """Seconds for one sample of z of one image."""
        return self._seconds_per_sample(self.model, self.images, self.chunk)
