"""Finds all errors of a configuration at once. It has no side effects: nothing is written or set."""

import math

import torch
from torch import nn

from vae_train.batch import DataFacts
from vae_train.data.dataset import Transforms
from vae_train.data.session import DataSession
from vae_train.model.base import LatentVariableModel, Part
from vae_train.runs import compatibility
from vae_train.runs.build import (
    Builder,
    build_model,
    build_objective,
    build_source,
    build_transforms,
    load_data,
    read_weights,
)
from vae_train.runs.config import PLACES, Config
from vae_train.runs.defaults import run_epochs
from vae_train.runs.differences import model_differences
from vae_train.runs.ranks import sharing_errors
from vae_train.runs.run import Run
from vae_train.runs.schema import RunFacts, known
from vae_train.runs.tracking import tracker_errors
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.lr import PlateauRate
from vae_train.training.ranks import ALONE, Ranks
from vae_train.util.errors import ErrorDetail, RunError, UsageError, collecting
from vae_train.util.runtime import device_errors, resolve_device


def check(
    config: Config, session: DataSession, builder: Builder, read: bool = True, ranks: Ranks = ALONE
) -> list[ErrorDetail]:
    """All errors of a configuration for training.

    Args:
        config: the resolved configuration.
        session: reads the data; a training with the same session does not read it again.
        builder: locates classes.
        read: also read the pixels.
        ranks: the processes that train together.
    """
    # The other checks build components, so each of them must be valid.
    return builder.errors(config) or (
        execution_errors(config)
        + tracker_errors(config, builder)
        + (data_errors(config, session, builder, read) or (validation_errors(config, session, builder) if read else []))
        + model_errors(config, session, builder, ranks)
    )


def execution_errors(config: Config) -> list[ErrorDetail]:
    """A device that is not available, and settings that need CUDA."""
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
    errors = list[ErrorDetail]()
    with collecting(errors, _place(config)):
        stored = session.inspect(build_source(config, builder))
        if read:
            load_data(config, session, torch.device("cpu"), builder)
    if errors:
        return errors
    augmentation, corruption, preprocessing, *_ = build_transforms(config, builder)
    is_binary = stored.levels == 2 and config.at("data.binarize") != "dynamic"
    incompatible = {
        "augmentation": augmentation and augmentation.check_compatible(stored, is_binary),
        "corruption": corruption and corruption.check_compatible(stored),
        "preprocessing": preprocessing and preprocessing.check_compatible(stored.levels, stored.data_shape[0]),
    }
    errors += [ErrorDetail(where, compatibility.phrase(error)) for where, error in incompatible.items() if error]
    if errors:
        return errors
    batch_size = config.at("trainer.batch_size", None)
    num_train = stored.num_train
    if read:  # files that cannot be read do not count
        num_train = load_data(config, session, torch.device("cpu"), builder).facts.num_train
    if batch_size is not None and batch_size > num_train:
        return [ErrorDetail(f"batch_size={batch_size}", f"exceeds the {num_train:,} training images")]
    return []


def _place(config: Config) -> str:
    """The setting that locates the data, for messages."""
    return next((f"data.{name}={place}" for name in PLACES if (place := config["data"].get(name))), "data")


def validation_errors(config: Config, session: DataSession, builder: Builder) -> list[ErrorDetail]:
    """Patience and plateau schedules of a run without validations. Needs valid data."""
    data = load_data(config, session, torch.device("cpu"), builder)
    epochs = run_epochs(config, data.facts).total
    every, patience = (config["trainer"][name] for name in ("eval_every", "patience"))
    lacking = f"trainer.eval_every={every} exceeds the {epochs} epochs" if every > epochs else None
    if data.split("valid") is None:
        lacking = "the data has no validation split"
    is_plateau = issubclass(builder.locate(config["lr_schedule"]["_target_"]), PlateauRate)
    asked = [(f"trainer.patience={patience}", "trainer.patience=null")] if patience is not None else []
    asked += [("lr_schedule=plateau", "lr_schedule=constant")] if is_plateau else []
    reason = f"needs validations, but {lacking}"
    return [ErrorDetail(where, f"{reason}; use {instead}") for where, instead in asked if lacking]


def model_errors(config: Config, session: DataSession, builder: Builder, ranks: Ranks = ALONE) -> list[ErrorDetail]:
    """Incompatible components. To find them, the model is built on the meta device, without memory."""
    try:
        stored = session.inspect(build_source(config, builder))
    except UsageError:
        return []  # `data_errors` reports it
    transforms = build_transforms(config, builder)
    facts = transforms.facts(stored)
    errors = compatibility.size_errors(config["model"], math.prod(facts.data_shape), builder.locate)
    errors += combination_errors(config, facts, builder) + mask_errors(config, facts, transforms, builder)
    errors += sharing_errors(config, facts, builder, ranks)
    if errors:
        return errors
    with collecting(errors), torch.device("meta") as meta:
        model = build_model(config, facts, meta, builder)
    if errors:
        return errors
    with collecting(errors):
        build_objective(config, facts, builder)
    with collecting(errors):
        builder.build(config["lr_schedule"], **known(facts, RunFacts.of(config, facts)))
    with collecting(errors):
        builder.build(config["optimizer"])([nn.Parameter(torch.zeros(1))])
    if part := config.get("freeze"):
        errors += _frozen_errors(model, part, config)
    if name := config.get("init_from"):
        with collecting(errors, f"init_from={name}"):
            _check_initial_weights(model.to_empty(device="cpu"), Run.open(name), config)
    return errors


def _frozen_errors(model: LatentVariableModel, part: Part, config: Config) -> list[ErrorDetail]:
    """A part that cannot be frozen, or has no weights worth keeping."""
    where = f"freeze={part}"
    if not config.get("init_from"):
        return [ErrorDetail(where, f"would keep a random {part}; add init_from=<run>")]
    try:
        model.freeze(part)
    except NotImplementedError as error:
        return [ErrorDetail(where, f"is not supported by this model: {error}")]
    return []


def _check_initial_weights(model: LatentVariableModel, run: Run, config: Config) -> None:
    """Raises a UsageError if a model of `config` cannot start from the weights of a run."""
    try:
        read_weights(model, run, report=lambda *_: None)  # training reports damage
    except RunError as error:
        raise UsageError(str(error)) from error
    except UsageError as error:
        raise UsageError(f"has another architecture: {model_differences(run.config, config) or error}") from error


def combination_errors(config: Config, facts: DataFacts, builder: Builder) -> list[ErrorDetail]:
    """Components that are incompatible with the data, with each other, or with execution and precision."""
    parts = config["model"], config["objective"], builder.locate
    chosen = f"execution={config['trainer']['execution']}", f"precision={config['learner']['precision']}"
    return (
        compatibility.model_errors(config["model"], facts.levels, builder.locate, config["data"])
        + compatibility.combination_errors(*parts)
        + compatibility.accumulation_errors(config["learner"]["grad_accumulation"], *parts)
        + compatibility.capability_errors(chosen, *parts)
    )


def mask_errors(config: Config, facts: DataFacts, transforms: Transforms, builder: Builder) -> list[ErrorDetail]:
    """A likelihood that cannot leave out single values although some are missing or hidden."""
    likelihood = config.at("model.likelihood._target_")
    if likelihood is None or getattr(kind := builder.locate(likelihood), "supports_mask", True):
        return []
    corruption, reason = transforms.corruption, "cannot leave out single values"
    causes = ["data.missing=mask"] if facts.missing else []
    causes += ["corruption.score=observed"] if corruption is not None and corruption.masks else []
    where = f"model/likelihood={compatibility.stem(kind)}"
    return [ErrorDetail(where, f"{reason}, which {cause} needs; use model/likelihood=gaussian") for cause in causes]


def run_data_errors(run: Run, config: Config, session: DataSession, builder: Builder) -> list[ErrorDetail]:
    """Data of a run that is missing, or differs from the data that the run was trained on.

    Args:
        run: the run.
        config: its configuration, which may have another location of the data.
        session: reads the data.
        builder: locates classes.
    """
    place = _place(config)
    hint = f"; if it moved, add {place.partition('=')[0]}="
    found = data_errors(config, session, builder)
    errors = [e._replace(message=e.message + hint) if e.where == place else e for e in found]
    if errors or run.data_checksum() in (None, load_data(config, session, torch.device("cpu"), builder).checksum):
        return errors
    return [
        ErrorDetail(_place(config), f"is not the data that {run.folder} was trained on; restore it or start a new run")
    ]


def checkpoint_errors(run: Run, checkpoint: str = "best") -> list[ErrorDetail]:
    """A run that has no checkpoint, or not the requested one."""
    names = Checkpoints(run.checkpoints).names()
    if not names:
        why = f"{run.removed}; train it again with keep=best" if run.removed else " yet"
        return [ErrorDetail(str(run.folder), f"has no checkpoint{why}")]
    if checkpoint not in names and checkpoint != "best":  # the last checkpoint replaces a missing best one
        message = f"is not in {run.checkpoints}{run.removed}; use checkpoint={names[0]}"
        return [ErrorDetail(f"checkpoint={checkpoint}", message)]
    return []
