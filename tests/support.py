"""What several tests build: composed configurations, models, learners, examples of every distribution."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from torch import Tensor

import vae_train
from vae_train.batch import Batch, DataFacts, Split
from vae_train.cli.hydra_compat import conf_dir
from vae_train.cli.linked import fill_latent_shape
from vae_train.cli.overrides import resolved as plain
from vae_train.cli.reader import with_values
from vae_train.data.dataset import Dataset, TransformedImages, Transforms
from vae_train.data.session import DataSession
from vae_train.data.sources.base import Contents, Source
from vae_train.data.storage.stored import Splits, StoredImages, TensorStore
from vae_train.data.stream import Stream
from vae_train.distributions.base import Distribution
from vae_train.evaluation.subject import Noise
from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.rng import Rng, generator
from vae_train.runs import check
from vae_train.runs.build import Builder, build_transforms, load_data
from vae_train.training.execution import CompiledGradients, Feed, resolve
from vae_train.training.gradients import EagerGradients
from vae_train.training.learner import Learner
from vae_train.training.step import Scalars, StepInputs
from vae_train.training.trainer import Trainer
from vae_train.util.classes import is_class
from vae_train.util.errors import ErrorDetail

BUILDER = Builder()
build, locate = BUILDER.build, BUILDER.locate
CONF = conf_dir()
PACKAGE = Path(vae_train.__file__).parent
CATALOGUES = (
    *("data/sources", "objective"),
    *("model/architecture", "model/posterior", "model/prior", "model/prior/fitted", "model/likelihood"),
    "evaluation/metrics",
)
SHARED_FILES = ("__init__", "base", "bounds", "aggregate", "discrepancies", "critics", "schedule")
SHARED_FILES += ("adversarial", "perceptual", "spectral")
"""Files of a catalogue folder that are no entries of it."""
OPEN = {
    "folder": ["data.size=16", "data.channels=3"],
    "audio": [],
    "arrays": ["data.shape=[3,16,16]", "data.levels=256"],
}
"""What data sets leave open that look at the user's files; a run's config.yaml has it filled in."""
NOISE = Noise(0, "judge", "test")
BINARY = ("data.binarize=dynamic", "model/likelihood=bernoulli")
"""Digits as 0 or 1."""
SMALL = ("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "latent_dim=3", *BINARY)
LAYERED = {
    "lvae": ("model.latents=[4,3,2]", "model.hidden=[16,12,8]"),
    "hvae": ("model.latents=[4,3]", "model.hidden=16"),
    "convhvae": ("model.latents=[4,3]", "model.hidden=16", "model.channels=4"),
    "ladder": ("model.groups=[[4,1],[2,2]]", "model.latent_channels=2", "model.width=8"),
}
"""Models with several stochastic layers, and settings that make them small."""


@cache
def chosen(command: str, *choices: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(command, overrides=list(choices))


def compose(*overrides: str, command: str = "train") -> DictConfig:
    read = OverridesParser.create().parse_overrides(list(overrides))
    choices = [str(word.input_line) for word in read if (CONF / word.key_or_group).is_dir()]
    values = [word for word in read if word.input_line not in choices]
    cfg = with_values(chosen(command, *choices), values)
    fill_latent_shape(cfg, [word.key_or_group for word in values])
    return cfg


@cache
def _session() -> DataSession:
    return DataSession()


def loaded(cfg: DictConfig) -> Dataset:
    """The data of a configuration, on the CPU."""
    return load_data(plain(cfg), _session(), torch.device("cpu"), BUILDER)


def schema_errors(cfg: DictConfig) -> list[ErrorDetail]:
    return BUILDER.errors(plain(cfg))


def model_errors(cfg: DictConfig) -> list[ErrorDetail]:
    return check.model_errors(plain(cfg), _session(), BUILDER)


def execution_errors(cfg: DictConfig) -> list[ErrorDetail]:
    return check.execution_errors(plain(cfg))


def combination_errors(cfg: DictConfig) -> list[ErrorDetail]:
    """Components that do not fit each other or the data."""
    config = plain(cfg)
    facts = build_transforms(config, BUILDER).facts(facts_without_files(cfg))
    return check.combination_errors(config, facts, BUILDER)


def facts_without_files(cfg: DictConfig) -> DataFacts:
    """The facts of a data set; for one that looks at the user's files, those of `OPEN`."""
    if {"path", "max_bad"} & cfg.data.keys():
        levels = 2 if cfg.data.get("binarize", "none") != "none" else 256
        size = cfg.data.get("size") or 16
        return DataFacts((3, *(size if isinstance(size, list | tuple) else (size, size))), levels, 0)
    return build(cfg.data).inspect()


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def single_latent_models() -> list[str]:
    """Models with a single latent, whose posterior and prior are components."""
    return [name for name in choices("model") if name not in LAYERED]


def layered_models(fast: str = "ladder") -> Any:
    """Parameters for a long test of models with several layers: one of them, and all others as slow tests."""
    return [name if name == fast else pytest.param(name, marks=pytest.mark.slow) for name in LAYERED]


def annealed() -> list[str]:
    """Objectives whose beta follows a schedule."""
    return [name for name in choices("objective") if "beta_schedule" in compose(f"objective={name}").objective]


def catalogue_modules(folder: str, shared: bool = False) -> Iterator[ModuleType]:
    package = importlib.import_module("vae_train." + folder.replace("/", "."))
    for found in pkgutil.iter_modules(package.__path__):
        if (shared or found.name not in SHARED_FILES) and not found.ispkg:
            yield importlib.import_module(f"{package.__name__}.{found.name}")


def classes_in(module: ModuleType) -> list[type]:
    """Public concrete classes that the module defines."""
    found = [c for name, c in vars(module).items() if is_class(c) and not name.startswith("_")]
    return [c for c in found if c.__module__ == module.__name__ and not inspect.isabstract(c)]


def build_model(cfg: DictConfig, shape: tuple[int, ...], levels: int | None) -> LatentVariableModel:
    torch.manual_seed(cfg.seed)
    return build(plain(cfg)["model"], data_shape=shape, levels=levels, factor_sizes=(10,))


def build_objective(cfg: DictConfig, shape: tuple[int, ...] = (1, 8, 8), steps_per_epoch: float = 10.0) -> Objective:
    return build(cfg.objective, steps_per_epoch=steps_per_epoch, epochs=30, data_shape=shape, num_train=1000)


def build_learner(cfg: DictConfig, model: LatentVariableModel, steps_per_epoch: float = 10.0) -> Learner:
    return build(
        cfg.learner,
        model=model,
        objective=build_objective(cfg, model.data_shape, steps_per_epoch),
        optimizer=build(cfg.optimizer),
        lr_schedule=build(cfg.lr_schedule, steps_per_epoch=steps_per_epoch, epochs=cfg.epochs or 30),
        seed=cfg.seed,
        gradients=CompiledGradients if cfg.trainer.execution == "compile" else EagerGradients,
    )


def small_run(*overrides: str) -> tuple[Dataset, Learner, Trainer]:
    """A loaded data set (digits), a small learner and a trainer."""
    cfg = compose(*SMALL, "batch_size=128", *overrides)
    data = loaded(cfg)
    trainer = build(cfg.trainer)
    trainer.execution = resolve(trainer.execution, torch.device("cpu"))
    model = build_model(cfg, data.facts.data_shape, data.facts.levels)
    return data, build_learner(cfg, model, data.facts.num_train / trainer.batch_size), trainer


def feed_of(data: Dataset, learner: Learner, batch_size: int = 100) -> Feed:
    """The inputs of a learner's steps on the training images."""
    return Feed(Stream(data.training(), batch_size, seed=learner.seed, device=learner.device), learner.rates)


def inputs(learner: Learner, batch: Batch, step: int) -> StepInputs:
    """The inputs of a step on `batch`."""
    return StepInputs(batch, step, learner.rates(step), Rng(learner.seed, "train", step, device=learner.device))


def update(learner: Learner, batch: Batch, step: int) -> Scalars:
    """Takes a step on `batch`."""
    return learner.step(inputs(learner, batch, step))


def scalars_of(
    objective: Objective, trace: Trace, step: Any = 0, model: Any = None, rng: Rng | None = None
) -> dict[str, Tensor]:
    """What an objective makes of a trace; few objectives need the model."""
    return objective(model, trace, step, Rng(0, "objective") if rng is None else rng)


def run(
    model: LatentVariableModel,
    objective: Objective,
    batch: Batch,
    rng: Rng,
    step: Any = 0,
    num_samples: int | None = None,
) -> dict[str, Tensor]:
    """The scalars of one batch, with one source of noise for model and objective as in training."""
    return objective(model, model(batch, rng, num_samples or objective.num_samples), step, rng)


def binary_batch(size: int, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> Batch:
    return Batch(torch.rand(size, *shape, generator=generator(seed, "batch")).round())


def load(source: Source, **options: Any) -> Dataset:
    """The data set of a source, read anew; see `DataSession.load`."""
    return DataSession().load(source, **options)


def tensor_images(pixels: Tensor, levels: int | None, *stored: Any, **transforms: Any) -> TransformedImages:
    """Images from a tensor; `stored` are further arguments of `StoredImages`, `transforms` those of `Transforms`."""
    images = StoredImages(TensorStore(pixels), levels, *stored)
    return TransformedImages(images, transforms=Transforms(**transforms))


class SplitSource(Source):
    """A source of splits that are in memory already."""

    def __init__(
        self, train: StoredImages, valid: StoredImages | None = None, test: StoredImages | None = None
    ) -> None:
        splits: dict[Split, StoredImages | None] = {"train": train, "valid": valid, "test": test}
        self.splits: Splits = {name: images for name, images in splits.items() if images is not None}

    def inspect(self) -> DataFacts:
        train = self.splits["train"]
        return DataFacts(train.shape, 2 if train.stochastic else train.levels, len(train))

    def read(self) -> Contents:
        return Contents(self.splits)


class InMemory:
    """Images that are there already, as a split."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        return Batch(self.x[index], None if self.y is None else self.y[index])


def levels_for(likelihood: Mapping[str, Any]) -> int | None:
    """Levels of data that a likelihood's node accepts: 17 grey values if it can, else bits, else continuous values."""
    target: Any = locate(likelihood["_target_"])
    settings = {key: value for key, value in likelihood.items() if not key.startswith("_")}
    for levels in (17, 2, None):
        if target.check_compatible(levels, **settings) is None:
            return levels
    raise AssertionError(f"{likelihood} takes no data")


def all_distributions() -> list[type]:
    folders = ("distributions", "distributions/flows")
    modules = [module for folder in folders for module in catalogue_modules(folder, shared=True)]
    found = [c for module in modules for c in classes_in(module)]
    return sorted((c for c in found if issubclass(c, Distribution)), key=lambda c: c.__name__)


def parameters_of(found: Any) -> list[Tensor]:
    """The tensors that a distribution, and those within it, were made of."""
    values = list(vars(found).values())
    inner = [tensor for value in values if isinstance(value, Distribution) for tensor in parameters_of(value)]
    return [value for value in values if isinstance(value, Tensor)] + inner
