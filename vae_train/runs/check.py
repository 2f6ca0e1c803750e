"""Everything that is wrong with a configuration, at once and without side effects: nothing is written or set."""

import math

import torch
from torch import nn

from vae_train.batch import DataFacts
from vae_train.data.session import DataSession
from vae_train.model.base import LatentVariableModel
from vae_train.runs import compatibility
from vae_train.runs.build import (
    build_model,
    build_objective,
    build_source,
    build_transforms,
    known,
    load_data,
    read_weights,
    run_facts,
)
from vae_train.runs.builder import Builder
from vae_train.runs.config import Config
from vae_train.runs.run import Run
from vae_train.training.checkpoint import Checkpoints
from vae_train.util.errors import ErrorDetail, RunError, UsageError
from vae_train.util.runtime import device_errors, resolve_device


def check(config: Config, session: DataSession, builder: Builder, read: bool = True) -> list[ErrorDetail]:
    """Everything that is wrong with a configuration for training.

    Args:
        config: the resolved configuration.
        session: reads the data; a training with the same session does not read it again.
        builder: locates classes.
        read: also read the pixels.
    """
    # What follows builds components, which supposes that each of them is valid.
    return builder.errors(config) or (
        execution_errors(config) + data_errors(config, session, builder, read) + model_errors(config, session, builder)
    )


def execution_errors(config: Config) -> list[ErrorDetail]:
    """A device that does not exist here, and what needs CUDA."""
    errors = device_errors(config["device"])
    if errors or (device := resolve_device(config["device"])).type == "cuda":
        return errors
    if config["trainer"]["execution"] == "graph":
        message = f"needs CUDA, not {device}; use execution=eager or execution=compile"
        errors.append(ErrorDetail("execution=graph", message))
    if config["learner"]["precision"] == "tf32":
        errors.append(ErrorDetail("precision=tf32", f"needs CUDA, not {device}; use float32 or bfloat16"))
    return errors


def data_errors(config: Config, session: DataSession, builder: Builder, read: bool = True) -> list[ErrorDetail]:
    """Data that is missing, cannot be preprocessed as configured, or is smaller than a batch.

    Args:
        config: the resolved configuration.
        session: reads the data.
        builder: locates classes.
        read: also read the pixels.
    """
    try:
        stored = session.inspect(build_source(config, builder))
        if read:
            load_data(config, session, torch.device("cpu"), builder)
    except UsageError as error:
        return [e if e.where else ErrorDetail(_data_setting(config), e.message) for e in error.errors]
    preprocessing = build_transforms(config, builder).preprocessing
    incompatible = preprocessing and preprocessing.check_compatible(stored.levels, stored.data_shape[0])
    if incompatible:
        return [ErrorDetail("preprocessing", compatibility.phrase(incompatible))]
    batch_size = config.at("trainer.batch_size", 0)
    if batch_size > stored.num_train:
        message = f"exceeds the {stored.num_train:,} training images"
        return [ErrorDetail(f"batch_size={batch_size}", message)]
    return []


def _data_setting(config: Config) -> str:
    """The setting that says where the data is."""
    name = next((name for name in ("root", "path") if config["data"].get(name)), None)
    return f"data.{name}={config['data'][name]}" if name else "data"


def model_errors(config: Config, session: DataSession, builder: Builder) -> list[ErrorDetail]:
    """Components that do not fit each other. The model is built without memory to find out."""
    try:
        stored = session.inspect(build_source(config, builder))
    except UsageError:
        return []  # `data_errors` says so
    facts = build_transforms(config, builder).facts(stored)
    errors = _latent_errors(config, facts) + combination_errors(config, facts, builder)
    if errors:
        return errors
    meta = torch.device("meta")
    try:
        with meta:
            model = build_model(config, facts, meta, builder)
    except UsageError as error:
        return error.errors
    errors = _constructor_errors(config, facts, builder)
    if config.get("init_from"):
        errors += _init_errors(config["init_from"], model)
    return errors


def combination_errors(config: Config, facts: DataFacts, builder: Builder) -> list[ErrorDetail]:
    """Components that do not fit the data, each other, or how the training computes."""
    model, objective, locate = config["model"], config["objective"], builder.locate
    required = {}
    if config["trainer"]["execution"] == "compile":
        required["compile"] = "execution=compile"
    if config["learner"]["precision"] == "bfloat16":
        required["bf16"] = "precision=bfloat16"
    return (
        compatibility.model_errors(model, facts.levels, locate)
        + compatibility.combination_errors(model, objective, locate)
        + compatibility.accumulation_errors(config["learner"]["grad_accumulation"], model, objective, locate)
        + compatibility.capability_errors(required, model, objective, locate)
    )


def _constructor_errors(config: Config, facts: DataFacts, builder: Builder) -> list[ErrorDetail]:
    """What objective, learning rate and optimiser say about their settings."""
    constructors = (
        lambda: build_objective(config, facts, builder),
        lambda: builder.build(config["lr_schedule"], **known(facts, run_facts(config, facts))),
        lambda: builder.build(config["optimizer"])([nn.Parameter(torch.zeros(1))]),
    )
    errors: list[ErrorDetail] = []
    for construct in constructors:
        try:
            construct()
        except UsageError as error:
            errors += error.errors
    return errors


def _latent_errors(config: Config, facts: DataFacts) -> list[ErrorDetail]:
    size, pixels = math.prod(config.at("model.latent_shape", ())), math.prod(facts.data_shape)
    return [ErrorDetail(f"latent_dim={size}", f"exceeds the {pixels} values per image")] if size > pixels else []


def _init_errors(name: str, model: LatentVariableModel) -> list[ErrorDetail]:
    try:
        read_weights(model.to_empty(device="cpu"), Run.open(name))
    except (UsageError, RunError) as error:
        return [ErrorDetail(f"init_from={name}", str(error))]
    return []


def open_run(name: str, where: str, builder: Builder) -> tuple[Run | None, list[ErrorDetail]]:
    """Opens a run and checks its saved configuration, which somebody else may have written.

    Args:
        name: see `Run.open`.
        where: what was typed, for the messages.
        builder: locates classes.
    """
    try:
        run = Run.open(name)
    except UsageError as error:
        return None, [ErrorDetail(where, str(error))]
    errors = [ErrorDetail(f"{run.config_file}: {e.where}", e.message) for e in builder.errors(run.config)]
    return (None if errors else run), errors


def checkpoint_errors(run: Run, checkpoint: str = "best") -> list[ErrorDetail]:
    """A run that has no checkpoint, or not the one that is named."""
    names = Checkpoints(run.checkpoints).names()
    if not names:
        return [ErrorDetail(str(run.folder), "has no checkpoint yet")]
    if checkpoint not in names and checkpoint != "best":  # the last checkpoint stands in for a missing best one
        return [ErrorDetail(f"checkpoint={checkpoint}", f"is not in {run.checkpoints}; use checkpoint={names[0]}")]
    return []
