"""Training with this package: single steps and whole epochs, built as `vae train` builds them."""

from __future__ import annotations

import math
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from benchmarks.implementation import Implementation, Unavailable
from benchmarks.training import Training, compose_config
from benchmarks.workload import NUM_TEST_IMAGES, Settings, Workload, load_images

LEVELS = 256


class VaeTrainLoop(Implementation):
    """Trains with vae_train.

    Args:
        settings: what is trained, and on what.
        execution: the setting of that name; "auto" is the default.
        precision: the setting of that name.
    """

    def __init__(self, settings: Settings, execution: str = "auto", precision: str = "float32") -> None:
        super().__init__(settings)
        self.execution = execution
        with tempfile.TemporaryDirectory() as folder:
            path = write_images(settings, Path(folder) / "images.npz")
            overrides = [*workload_overrides(self.workload), f"data.path={path}", f"device={self.device}"]
            overrides += [f"threads={settings.threads}", f"execution={execution}", f"precision={precision}"]
            overrides += [f"logger={'tensorboard' if find_spec('tensorboard') else 'none'}"]
            self.training = Training(compose_config(overrides))
        self.num_parameters = sum(p.numel() for p in self.training.model.parameters())

    @override
    def steps(self, count: int) -> float:
        loss = self.training.steps(count)
        if self.execution not in ("auto", self.training.execution):
            raise Unavailable(f"execution={self.execution} fell back to {self.training.execution}")
        return loss - loss_constant(self.workload)

    @override
    def epoch(self, count: int = 1) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.training.fit(count, Path(folder))

    def timed_epochs(self, count: int) -> dict[str, float]:
        """Trains for several epochs with all outputs; returns "seconds"."""
        self.synchronize()
        start = time.perf_counter()
        self.epoch(count)
        self.synchronize()
        return {"seconds": time.perf_counter() - start}

    def timed_epochs_without_outputs(self, count: int) -> dict[str, float]:
        """Takes the steps and validations of several epochs and nothing else; returns "seconds"."""
        self.synchronize()
        start = time.perf_counter()
        self.training.restart_stream()
        for _ in range(count):
            self.training.steps(-(-self.settings.num_images // self.workload.batch_size))
            self.training.validate()
        self.synchronize()
        return {"seconds": time.perf_counter() - start}

    @override
    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "execution": self.training.execution}


def workload_overrides(workload: Workload) -> list[str]:
    """The overrides of `vae train` for a workload; data.path= is missing."""
    overrides = [f"latent_dim={workload.latent_dim}", f"batch_size={workload.batch_size}", "seed=1"]
    overrides += ["data=arrays", "data.test=0"]
    if workload.network == "mlp":
        hidden = f"hidden=[{workload.width}]"
        overrides += ["model=mlp", f"model.encoder.{hidden}", f"model.decoder.{hidden}"]
    else:
        overrides += ["model=conv", "model.decoder.upsample=stride"]
    if workload.binary:
        return [*overrides, "model/likelihood=bernoulli", "model.likelihood.grey_targets=true"]
    return [*overrides, "model/likelihood=mse"]


def write_images(settings: Settings, path: Path) -> Path:
    """Writes the images that all implementations train on into a file for data=arrays; returns its path."""
    train = load_images(settings.workload.shape, settings.num_images)
    num_valid = NUM_TEST_IMAGES if train.description == "MNIST" else min(NUM_TEST_IMAGES, settings.num_images)
    valid = load_images(settings.workload.shape, num_valid, train=False)
    np.savez(path, train_images=train.pixels.numpy(), valid_images=valid.pixels.numpy())
    return path


def loss_constant(workload: Workload) -> float:
    """The terms of our loss that half the squared error lacks: the normal density's constant and the dequantisation."""
    if workload.binary:
        return 0.0
    return math.prod(workload.shape) * (0.5 * math.log(2 * math.pi) + 1 / (24 * LEVELS**2))
