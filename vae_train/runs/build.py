"""A checked configuration -> the objects of a run, and the checks that need to look at more than one of them."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vae_train.batch import DataFacts
from vae_train.data.dataset import Dataset, Source
from vae_train.data.session import DataSession
from vae_train.data.transforms.pipeline import Transforms
from vae_train.model.base import LatentVariableModel
from vae_train.objective.base import Objective
from vae_train.runs import compatibility
from vae_train.runs.run import OUTPUTS, Run
from vae_train.runs.schema import allowed, build, locate, schema_errors
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.execution import CompiledGradients, is_captured, resolve
from vae_train.training.gradients import EagerGradients
from vae_train.training.learner import Learner
from vae_train.training.optimizer import capturable
from vae_train.training.trainer import Trainer
from vae_train.util.errors import ErrorDetail, RunError, UsageError
from vae_train.util.runtime import memory_format, prepare

session = DataSession()
"""What the current command has read; `vae_train.cli.main` clears it when a command ends."""


def assemble(cfg: DictConfig, device: torch.device) -> tuple[Dataset, Learner, Trainer]:
    """Builds everything that a training needs, on `device`."""
    allow = allowed(cfg)
    prepare(cfg.threads, cfg.learner.precision)
    data = loaded(cfg, device)
    trainer: Trainer = build(cfg.trainer, allow)
    trainer.execution = resolve(trainer.execution, device)
    model = build_model(cfg, data.facts, device)
    model.initialize(data.training())
    return data, build_learner(cfg, model, trainer, data.facts), trainer


def loaded(cfg: DictConfig, device: torch.device | str = "cpu") -> Dataset:
    """The data of a configuration, where it is used on `device`.

    Raises:
        UsageError: the data is missing, or is not what the configuration says.
    """
    return session.load(source(cfg), transforms(cfg), build(cfg.loader, allowed(cfg)), device)


def inspected(cfg: DictConfig) -> DataFacts:
    """Facts about the images that a model receives, without reading pixels.

    Raises:
        UsageError: the data is missing, or is not what the configuration says.
    """
    return transforms(cfg).facts(session.inspect(source(cfg)))


def source(cfg: DictConfig) -> Source:
    """Where the images of a configuration come from."""
    built: Source = build(cfg.data, allowed(cfg))
    return built


def transforms(cfg: DictConfig) -> Transforms:
    """What happens to the images of a configuration on their way to a model."""
    steps = {name: build(cfg[name], allowed(cfg)) for name in Transforms._fields if cfg.get(name) is not None}
    return Transforms(**steps).active()


def stated_facts(cfg: DictConfig) -> DataFacts:
    """Facts about the images that a model receives, as far as the configuration states them."""
    return transforms(cfg).facts(source(cfg).stated())


def build_learner(cfg: DictConfig, model: LatentVariableModel, trainer: Trainer, facts: DataFacts) -> Learner:
    """The learner of a model, on the model's device."""
    allow, steps = allowed(cfg), trainer.steps_per_epoch(facts.num_train)
    device = next(model.parameters()).device
    optimizer = build(cfg.optimizer, allow)
    learner: Learner = build(
        cfg.learner,
        allow,
        model=model,
        objective=build_objective(cfg, facts, steps).to(device),
        optimizer=capturable(optimizer) if is_captured(trainer.execution, device) else optimizer,
        lr_schedule=build(cfg.lr_schedule, allow, steps_per_epoch=steps, epochs=trainer.epochs),
        seed=cfg.seed,
        gradients=CompiledGradients if trainer.execution == "compile" else EagerGradients,
    )
    return learner


def build_objective(cfg: DictConfig, facts: DataFacts, steps_per_epoch: float) -> Objective:
    """The objective, on the CPU."""
    objective: Objective = build(cfg.objective, allowed(cfg), steps_per_epoch=steps_per_epoch, **arguments(facts))
    return objective


def build_model(cfg: DictConfig, facts: DataFacts, device: torch.device) -> LatentVariableModel:
    """The model with its initial weights, which are a function of the seed and not of the device."""
    torch.manual_seed(cfg.seed)
    model: LatentVariableModel = build(cfg.model, allowed(cfg), **arguments(facts))
    return model.to(device)


def arguments(facts: DataFacts) -> dict[str, Any]:
    """Constructor arguments that the data decides, by name."""
    return {**facts._asdict(), "factor_sizes": facts.factor_sizes}


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, else Apple's GPU, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def open_run(name: str, where: str, allow: str | None) -> tuple[Run | None, list[ErrorDetail]]:
    """Opens a run and looks its saved configuration through, which somebody else may have written.

    Args:
        name: see `Run.open`.
        where: what was typed, for the messages.
        allow: a further package whose classes may be named; never taken from the run itself.
    """
    try:
        run = Run.open(name)
    except UsageError as error:
        return None, [ErrorDetail(where, str(error))]
    run.config.allow = allow
    found = schema_errors(run.config, allowed(run.config))
    return (None if found else run), [ErrorDetail(f"{run.folder}/config.yaml: {m.where}", m.message) for m in found]


def open_model(run: Run, checkpoint: str, device: torch.device, allow: str | None = None) -> LatentVariableModel:
    """A run's model with the weights of a checkpoint, ready to be evaluated; the moving average where there is one."""
    cfg = run.config
    cfg.allow = allow  # never from the run itself
    model = build_model(cfg, stated_facts(cfg), device)
    read_weights(model, run, checkpoint)
    model.to(memory_format=memory_format(device, "float32"))  # type: ignore[call-overload]
    return model.eval()


def read_weights(model: LatentVariableModel, run: Run, checkpoint: str = "best") -> None:
    """Copies the evaluated weights of a run's checkpoint into `model`.

    Raises:
        UsageError: they belong to another architecture.
        RunError: the checkpoint cannot be read.
    """
    state = Checkpoints(run.checkpoints).load(checkpoint, next(model.parameters()).device)
    weights = state["model"]
    if state["ema"] is not None:
        prefix = "module."
        weights = {k.removeprefix(prefix): v for k, v in state["ema"].items() if k.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UsageError(f"the weights of {run.folder} do not fit this model: {detail}") from error


def device_errors(name: str) -> list[ErrorDetail]:
    """A device that does not exist here."""
    where = f"device={name}"
    if name == "auto":
        return []
    try:
        device = torch.device(name)
    except RuntimeError:
        return [ErrorDetail(where, "no such device (auto, cpu, cuda, cuda:1, mps)")]
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available():
            return [ErrorDetail(where, "there is no CUDA device here; use device=auto or device=cpu")]
        if (device.index or 0) >= count:
            return [ErrorDetail(where, f"there are {count} CUDA devices here, cuda:0 to cuda:{count - 1}")]
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            return [ErrorDetail(where, "there is no mps device here; use device=auto or device=cpu")]
    elif device.type != "cpu":
        return [ErrorDetail(where, "no such device (auto, cpu, cuda, cuda:1, mps)")]
    return []


def execution_errors(cfg: DictConfig) -> list[ErrorDetail]:
    """A device that does not exist here, and what only CUDA has."""
    found = device_errors(cfg.device)
    if found or (device := resolve_device(cfg.device)).type == "cuda":
        return found
    if cfg.trainer.execution == "graph":
        use = "use execution=eager or execution=compile"
        found.append(ErrorDetail("execution=graph", f"needs CUDA, and this is {device}; {use}"))
    if cfg.learner.precision == "tf32":
        found.append(ErrorDetail("precision=tf32", f"needs CUDA, and this is {device}; use float32 or bfloat16"))
    return found


def checkpoint_errors(run: Run, checkpoint: str = "best") -> list[ErrorDetail]:
    """A run that has not saved anything, or not what is asked for."""
    names = Checkpoints(run.checkpoints).names()
    if not names:
        return [ErrorDetail(str(run.folder), "has no checkpoint yet")]
    if checkpoint not in names and checkpoint != "best":  # without a best one the last one is the best
        return [ErrorDetail(f"checkpoint={checkpoint}", f"is not in {run.checkpoints}; use checkpoint={names[0]}")]
    return []


def folder_errors(cfg: DictConfig) -> list[ErrorDetail]:
    """A folder that exists already, cannot be written, or has no possible name."""
    name = str(cfg.get("name") or "run")
    if Path(name).name != name:
        return [ErrorDetail(f"name={name}", "is no name of a folder; out= takes a path")]
    folder = Path(str(cfg.out)) if cfg.out else OUTPUTS
    where = f"out={cfg.out}" if cfg.out else str(OUTPUTS)
    if cfg.out and folder.exists():
        return [ErrorDetail(where, "exists already: out= names a new folder")]
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return [ErrorDetail(where, f"{parent} cannot be written to; give another folder with out=")]
    return []


def data_errors(cfg: DictConfig) -> list[ErrorDetail]:
    """Data that is not there, cannot be preprocessed as asked, or is less than a batch."""
    try:
        facts = session.inspect(source(cfg))
        if not cfg.get("plan"):
            facts = loaded(cfg).stored_facts
    except UsageError as error:
        return [m if m.where else ErrorDetail(_place_of(cfg), m.message) for m in error.errors]
    preprocessing = transforms(cfg).preprocessing
    wrong = preprocessing and preprocessing.check_compatible(facts.levels, facts.data_shape[0])
    if wrong:
        instead = "".join(f"; use {setting}={value}" for setting, value in wrong.instead.items())
        return [ErrorDetail("preprocessing", wrong.reason + instead)]
    if "trainer" in cfg and cfg.trainer.batch_size > facts.num_train:
        where = f"batch_size={cfg.trainer.batch_size}"
        return [ErrorDetail(where, f"exceeds the {facts.num_train:,} training images")]
    return []


def _place_of(cfg: DictConfig) -> str:
    """The setting that says where the data is."""
    given = next((name for name in ("root", "path") if cfg.data.get(name)), None)
    return f"data.{given}={cfg.data[given]}" if given else "data"


def model_errors(cfg: DictConfig) -> list[ErrorDetail]:
    """Parts that do not fit each other: found by building everything, without memory and without data."""
    try:
        facts = inspected(cfg)
    except UsageError:
        return []  # `data_errors` says so
    found = _likelihood_errors(cfg, facts) + _latent_errors(cfg, facts) + combination_errors(cfg)
    if found:
        return found
    try:
        with torch.device("meta"):
            model = build_model(cfg, facts, torch.device("meta"))
    except UsageError as error:
        return error.errors
    steps = facts.num_train / cfg.trainer.batch_size
    for place in ("objective", "lr_schedule", "optimizer"):
        try:
            given = arguments(facts) | {"steps_per_epoch": steps, "epochs": cfg.epochs}
            built = build(cfg[place], allowed(cfg), **given)
            if place == "optimizer":
                built([nn.Parameter(torch.zeros(1))])
        except UsageError as error:
            found += error.errors
    if cfg.get("init_from"):
        found += _init_errors(cfg, model)
    return found


def _likelihood_errors(cfg: DictConfig, facts: DataFacts) -> list[ErrorDetail]:
    """Asks the likelihood itself, so that the message names what the user can choose."""
    return compatibility.model_errors(_plain(cfg.model), facts.levels, partial(locate, allow=allowed(cfg)))


def _plain(node: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def combination_errors(cfg: DictConfig) -> list[ErrorDetail]:
    """Parts of a model and an objective that make no sense together, or not as they are to be computed."""
    parts = {"model": _plain(cfg.model), "objective": _plain(cfg.objective)}
    where = partial(locate, allow=allowed(cfg))
    found = compatibility.combination_errors(**parts, locate=where)
    if "learner" not in cfg:
        return found
    asked = {}
    if cfg.trainer.execution == "compile":
        asked["compile"] = "execution=compile"
    if cfg.learner.precision == "bfloat16":
        asked["bf16"] = "precision=bfloat16"
    found += compatibility.accumulation_errors(cfg.learner.grad_accumulation, **parts, locate=where)
    return found + compatibility.capability_errors(asked, **parts, locate=where)


def _latent_errors(cfg: DictConfig, facts: DataFacts) -> list[ErrorDetail]:
    size, pixels = cfg.latent_dim, math.prod(facts.data_shape)
    if size <= pixels:
        return []
    return [
        ErrorDetail(f"latent_dim={size}", f"is more than the {pixels} values of an image: nothing would be compressed")
    ]


def _init_errors(cfg: DictConfig, model: LatentVariableModel) -> list[ErrorDetail]:
    where = f"init_from={cfg.init_from}"
    try:
        read_weights(model.to_empty(device="cpu"), Run.open(cfg.init_from))
    except (UsageError, RunError) as error:
        return [ErrorDetail(where, str(error))]
    return []
