"""What several tests build: composed configurations, models, learners, examples of every distribution."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
import torch
from hydra import initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

import vae_train
from vae_train import distributions
from vae_train.assembly import loaded
from vae_train.config import build, conf_dir
from vae_train.data.base import Batch, Dataset
from vae_train.distributions import Bernoulli, DequantizedNormal, Distribution, Normal
from vae_train.draws import generator
from vae_train.model.base import LatentVariableModel
from vae_train.training.learner import Learner
from vae_train.training.trainer import Trainer

CONF = conf_dir()
PACKAGE = Path(vae_train.__file__).parent
CATALOGUES = ("data", "objective", "model/architecture", "model/posterior", "model/prior", "model/likelihood")
SHARED_FILES = ("__init__", "base")
OPEN = {
    "folder": ["data.size=16", "data.channels=3"],
    "arrays": ["data.shape=[3,16,16]", "data.levels=256"],
}
"""What data sets leave open that look at the user's files; a run's config.yaml has it filled in."""
SMALL = ("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "latent_dim=3")


@cache
def _composed(command: str, overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(command, overrides=list(overrides))


def compose(*overrides: str, command: str = "train") -> DictConfig:
    return _composed(command, overrides).copy()


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def catalogue_modules(folder: str) -> Iterator[ModuleType]:
    package = importlib.import_module("vae_train." + folder.replace("/", "."))
    for found in pkgutil.iter_modules(package.__path__):
        if found.name not in SHARED_FILES and not found.ispkg:
            yield importlib.import_module(f"{package.__name__}.{found.name}")


def classes_in(module: ModuleType) -> list[type]:
    """Public concrete classes that the module defines."""
    found = [c for name, c in vars(module).items() if inspect.isclass(c) and not name.startswith("_")]
    return [c for c in found if c.__module__ == module.__name__ and not inspect.isabstract(c)]


def build_model(cfg: DictConfig, shape: tuple[int, ...], levels: int | None) -> LatentVariableModel:
    torch.manual_seed(cfg.seed)
    return build(cfg.model, data_shape=shape, levels=levels)


def build_learner(cfg: DictConfig, model: LatentVariableModel, steps_per_epoch: float = 10.0) -> Learner:
    return build(
        cfg.learner,
        model=model,
        objective=build(cfg.objective, steps_per_epoch=steps_per_epoch),
        optimizer=build(cfg.optimizer),
        lr_schedule=build(cfg.lr_schedule, steps_per_epoch=steps_per_epoch, epochs=cfg.epochs),
        seed=cfg.seed,
    )


def small_run(*overrides: str) -> tuple[Dataset, Learner, Trainer]:
    """A loaded data set (digits), a small learner and a trainer."""
    cfg = compose(*SMALL, *overrides)
    data = loaded(cfg)
    trainer = build(cfg.trainer)
    model = build_model(cfg, data.shape, data.scored_levels)
    return data, build_learner(cfg, model, trainer.steps_per_epoch(data.num_train)), trainer


def binary_batch(size: int, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> Batch:
    return Batch(torch.rand(size, *shape, generator=generator(seed, "batch")).round())


def _normal(batch: tuple[int, ...], event: tuple[int, ...], dtype: torch.dtype, seed: int) -> Normal:
    source = generator(seed, "example")
    make = {"generator": source, "dtype": torch.float64}
    mean, log_scale = torch.randn((*batch, *event), **make), 0.5 * torch.randn((*batch, *event), **make)
    return Normal(mean.to(dtype), log_scale.to(dtype), len(event))


def _dequantized(batch: tuple[int, ...], event: tuple[int, ...], dtype: torch.dtype, seed: int) -> DequantizedNormal:
    source = generator(seed, "example")
    make = {"generator": source, "dtype": torch.float64}
    mean, log_scale = torch.rand((*batch, *event), **make), torch.rand((*batch, *event), **make) - 2.5
    return DequantizedNormal(mean.to(dtype), log_scale.to(dtype), 17, len(event))


def _bernoulli(batch: tuple[int, ...], event: tuple[int, ...], dtype: torch.dtype, seed: int) -> Bernoulli:
    logits = torch.randn((*batch, *event), generator=generator(seed, "example"), dtype=torch.float64)
    return Bernoulli(logits.to(dtype), len(event))


Example = Callable[[tuple[int, ...], tuple[int, ...], torch.dtype, int], Distribution]
EXAMPLES: dict[type[Distribution], Example] = {
    Normal: _normal,
    DequantizedNormal: _dequantized,
    Bernoulli: _bernoulli,
}
"""For every class of `vae_train.distributions`: (batch, event, dtype, seed) -> one of them."""


def all_distributions() -> list[type]:
    return [c for c in classes_in(distributions) if issubclass(c, Distribution)]


def parameters_of(found: Any) -> list[Tensor]:
    """The tensors that a distribution was made of."""
    return [value for value in vars(found).values() if isinstance(value, Tensor)]
