"""A checked configuration -> data, model, objective, learner and trainer."""

from typing import NamedTuple

import torch

from vae_train.batch import DataFacts
from vae_train.data.dataset import Dataset, Transforms
from vae_train.data.session import DataSession
from vae_train.data.sources.base import Source
from vae_train.model.base import LatentVariableModel
from vae_train.objective.base import Objective
from vae_train.runs.builder import Builder
from vae_train.runs.config import Config
from vae_train.runs.run import Run
from vae_train.runs.schema import RunFacts, known
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.execution import CompiledGradients, is_captured, resolve
from vae_train.training.gradients import EagerGradients
from vae_train.training.learner import Learner
from vae_train.training.optimizer import capturable
from vae_train.training.trainer import Trainer
from vae_train.util.errors import UsageError
from vae_train.util.runtime import memory_format


class Training(NamedTuple):
    """Everything that a training needs."""

    data: Dataset
    learner: Learner
    trainer: Trainer


def assemble(config: Config, session: DataSession, device: torch.device, builder: Builder) -> Training:
    """Builds everything that a training needs, on `device`; the model has its initial weights."""
    data = load_data(config, session, device, builder)
    trainer = build_trainer(config, device, builder)
    model = build_model(config, data.facts, device, builder)
    model.initialize(data.training())
    return Training(data, build_learner(config, model, data.facts, builder), trainer)


def build_source(config: Config, builder: Builder) -> Source:
    """Where the images come from."""
    return builder.build(config["data"])


def build_transforms(config: Config, builder: Builder) -> Transforms:
    """What happens to pixels on their way to the model."""
    return Transforms(*(builder.build(config[place]) for place in ("augmentation", "corruption", "preprocessing")))


def stated_facts(config: Config, builder: Builder) -> DataFacts:
    """The facts that a saved configuration states about its data, which need not exist any more."""
    return build_transforms(config, builder).facts(build_source(config, builder).stated())


def load_data(config: Config, session: DataSession, device: torch.device, builder: Builder) -> Dataset:
    """The data of a configuration, placed where it is used on `device`.

    Raises:
        UsageError: the data cannot be found, or is not what the configuration says.
    """
    loader = builder.build(config["loader"])
    return session.load(build_source(config, builder), build_transforms(config, builder), loader, device)


def build_model(config: Config, facts: DataFacts, device: torch.device, builder: Builder) -> LatentVariableModel:
    """The model with its initial weights, which are a function of the seed and not of the device."""
    torch.manual_seed(config["seed"])
    return builder.build(config["model"], **known(facts)).to(device)


def build_objective(config: Config, facts: DataFacts, builder: Builder) -> Objective:
    """The objective, on the CPU."""
    return builder.build(config["objective"], **known(facts, RunFacts.of(config, facts)))


def build_learner(config: Config, model: LatentVariableModel, facts: DataFacts, builder: Builder) -> Learner:
    """The learner of a model, on the model's device."""
    arguments, device = known(facts, RunFacts.of(config, facts)), next(model.parameters()).device
    mode, optimizer = resolve(config["trainer"]["execution"], device), builder.build(config["optimizer"])
    return builder.build(
        config["learner"],
        model=model,
        objective=build_objective(config, facts, builder).to(device),
        optimizer=capturable(optimizer) if is_captured(mode, device) else optimizer,
        lr_schedule=builder.build(config["lr_schedule"], **arguments),
        gradients=CompiledGradients if mode == "compile" else EagerGradients,
        **arguments,
    )


def build_trainer(config: Config, device: torch.device, builder: Builder) -> Trainer:
    """The trainer; how it executes steps is decided."""
    trainer: Trainer = builder.build(config["trainer"])
    trainer.execution = resolve(trainer.execution, device)
    return trainer


def open_model(run: Run, device: torch.device, builder: Builder, checkpoint: str = "best") -> LatentVariableModel:
    """A run's model with the weights of a checkpoint (their moving average if there is one), in evaluation mode."""
    model = build_model(run.config, stated_facts(run.config, builder), device, builder)
    read_weights(model, run, checkpoint)
    model.to(memory_format=memory_format(device, "float32"))  # type: ignore[call-overload]
    return model.eval()


def read_weights(model: LatentVariableModel, run: Run, checkpoint: str = "best") -> None:
    """Copies the evaluated weights of a run's checkpoint into `model`.

    Raises:
        UsageError: the weights belong to another architecture.
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
