"""Builds objects from a configuration: the classes that its nodes name, and everything that training needs.

A configuration may come from an untrusted source, so only known classes are built.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from vae_train.batch import DataFacts
from vae_train.data.dataset import Dataset, Transforms
from vae_train.data.session import DataSession
from vae_train.data.sources.base import Source
from vae_train.model.base import LatentVariableModel
from vae_train.objective.base import Objective
from vae_train.runs.compatibility import phrase
from vae_train.runs.config import Config
from vae_train.runs.packages import allow_setting, package_of
from vae_train.runs.run import Run
from vae_train.runs.schema import RunFacts, known, parameters, schema_errors, settings
from vae_train.training.checkpoint import Report
from vae_train.training.execution import CompiledGradients, is_captured, resolve
from vae_train.training.gradients import EagerGradients
from vae_train.training.learner import Learner
from vae_train.training.optimizer import capturable
from vae_train.training.ranks import ALONE, Ranks
from vae_train.training.trainer import Trainer
from vae_train.util.classes import is_class
from vae_train.util.errors import ErrorDetail, IncompatibleError, UsageError
from vae_train.util.files import unreadable
from vae_train.util.runtime import memory_format

CATALOGUE = (
    *("vae_train.data.sources", "vae_train.data.transforms", "vae_train.data.storage.loader"),
    *("vae_train.model", "vae_train.objective", "vae_train.evaluation.metrics", "torch.optim"),
    *(f"vae_train.training.{module}" for module in ("distributed", "learner", "lr", "loggers", "trainer")),
    *("vae_train.runs.apply.tasks", "vae_train.runs.cluster", "vae_train.runs.search.samplers"),
)
"""Packages and modules whose classes a configuration may name."""


class Builder:
    """Locates and builds the classes that a configuration names.

    Args:
        allow: additional packages whose classes may be built. They come from the command line or from Python, never
            from a saved run.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = tuple(allow)

    def locate(self, target: str) -> type:
        """The class with a dotted name. The name is checked before anything is imported, then the class itself.

        Raises:
            UsageError: the class does not exist, or may not be built.
        """
        trusted = (*CATALOGUE, *self.allow)
        if not _inside(target, trusted):
            package, message = package_of(target), f"{target or 'an empty name'} is not a component of vae_train"
            advice = f"; if you trust the package {package}, add {allow_setting([package])}" if package else ""
            raise UsageError([ErrorDetail("", message + advice, package)])
        module, _, name = target.rpartition(".")
        try:
            located = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(f"there is no class {target} ({error})") from error
        except Exception as error:  # whatever another package does when it is imported
            raise UsageError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
        is_known = is_class(located) and _inside(located.__module__, trusted)
        is_optimizer = is_known and any(base.__name__ == "Optimizer" for base in located.__mro__)
        if not is_known or (located.__module__.startswith("torch.optim") and not is_optimizer):
            raise UsageError(f"{target} is not a component of vae_train or an optimiser of torch.optim")
        return located

    def errors(self, config: Config) -> list[ErrorDetail]:
        """All errors in the nodes of a configuration, with dotted paths."""
        return schema_errors(config, self.locate)

    def build(self, node: Any, /, **known: Any) -> Any:
        """Calls the constructor of a node; nodes within it are built first.

        Args:
            node: a section with a `_target_`; `_partial_: true` returns a function of the remaining arguments. Other
                sections and lists become dictionaries and lists; values are returned unchanged.
            known: arguments that only the program knows; every constructor receives those among its parameters.

        Raises:
            UsageError: a constructor raised ValueError; the error names the path of its node.
        """
        if isinstance(node, Sequence) and not isinstance(node, str):
            return [self.build(item, **known) for item in node]
        if not isinstance(node, Mapping):
            return node
        arguments = {key: self.build(value, **known) for key, value in settings(node).items()}
        if "_target_" not in node:
            return arguments
        path = node.path if isinstance(node, Config) else ""
        target = self.locate(str(node["_target_"]))
        facts = {key: value for key, value in known.items() if key in parameters(target)}
        constructor = Partial(target, facts | arguments, path)
        return constructor if node.get("_partial_") else constructor()


class Partial:
    """A constructor with some of its arguments.

    Args:
        target: the class.
        arguments: arguments from the configuration, and facts.
        path: dotted path of the node, for error messages.
    """

    def __init__(self, target: type, arguments: dict[str, Any], path: str) -> None:
        self.target, self.arguments, self.path = target, arguments, path
        self.__signature__ = inspect.signature(target)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the constructor; a ValueError becomes a UsageError with the path of the node."""
        try:
            return self.target(*args, **(self.arguments | kwargs))
        except IncompatibleError as error:
            raise UsageError([ErrorDetail(self.path, phrase(error.incompatible))]) from error
        except ValueError as error:
            raise UsageError([ErrorDetail(self.path, str(error))]) from error


def _inside(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


class Training(NamedTuple):
    """Everything that a training needs."""

    data: Dataset
    learner: Learner
    trainer: Trainer


def assemble(
    config: Config, session: DataSession, device: torch.device, builder: Builder, ranks: Ranks = ALONE
) -> Training:
    """Builds everything that a training needs, on `device`; the model has its initial weights."""
    data = load_data(config, session, device, builder)
    trainer = build_trainer(config, device, builder)
    model = build_model(config, data.facts, device, builder)
    model.initialize(data.training())
    return Training(data, build_learner(config, model, data.facts, builder, ranks), trainer)


def build_transforms(config: Config, builder: Builder) -> Transforms:
    """Builds the transforms of pixels between the data set and the model."""
    return Transforms(*(builder.build(config[place]) for place in ("augmentation", "corruption", "preprocessing")))


def build_source(config: Config, builder: Builder) -> Source:
    """Builds the source of the images, with a scaling that the model can score.

    Raises:
        UsageError: the model needs numbers in [0, 1], and another scaling is set.
    """
    data, likelihood = config["data"], config.at("model.likelihood._target_")
    if "scaling" not in data:
        return builder.build(data)
    bounded = likelihood is not None and getattr(builder.locate(likelihood), "is_bounded", False)
    needed = "range" if bounded or config.at("preprocessing.logit") is not None else None
    if needed and data["scaling"] == "standard":
        raise UsageError([ErrorDetail("data.scaling=standard", "the model needs numbers in [0, 1]; use range")])
    return builder.build(data.with_values({"scaling": data["scaling"] or needed or "standard"}))


def run_facts(run: Run, builder: Builder) -> DataFacts:
    """The facts about a run's data as stored during training; the data itself may be gone."""
    if (facts := run.facts()) is not None:
        return facts
    run.report(unreadable(run.facts_file), "using the data instead")
    return build_source(run.config, builder).inspect()


def load_data(config: Config, session: DataSession, device: torch.device, builder: Builder) -> Dataset:
    """Loads the data of a configuration for use on `device`.

    Raises:
        UsageError: the data cannot be found, or does not match the configuration.
    """
    loader = builder.build(config["loader"])
    return session.load(build_source(config, builder), build_transforms(config, builder), loader, device)


def build_model(config: Config, facts: DataFacts, device: torch.device, builder: Builder) -> LatentVariableModel:
    """Builds the model with its initial weights, which depend on the seed but not on the device."""
    torch.manual_seed(config["seed"])
    return builder.build(config["model"], **known(facts)).to(device)


def build_objective(config: Config, facts: DataFacts, builder: Builder) -> Objective:
    """Builds the objective on the CPU."""
    return builder.build(config["objective"], **known(facts, RunFacts.of(config, facts)))


def build_learner(
    config: Config, model: LatentVariableModel, facts: DataFacts, builder: Builder, ranks: Ranks = ALONE
) -> Learner:
    """Builds the learner of a model, on the model's device; a part of the model may be frozen."""
    if part := config.get("freeze"):
        model.freeze(part)
    arguments, device = known(facts, RunFacts.of(config, facts)), next(model.parameters()).device
    mode, optimizer = resolve(config["trainer"]["execution"], device), builder.build(config["optimizer"])
    return builder.build(
        config["learner"],
        model=model,
        objective=build_objective(config, facts, builder).to(device),
        optimizer=capturable(optimizer) if is_captured(mode, device) else optimizer,
        lr_schedule=builder.build(config["lr_schedule"], **arguments),
        gradients=CompiledGradients if mode == "compile" else EagerGradients,
        ranks=ranks,
        **arguments,
    )


def build_trainer(config: Config, device: torch.device, builder: Builder) -> Trainer:
    """Builds the trainer, with its mode of execution resolved."""
    trainer: Trainer = builder.build(config["trainer"])
    trainer.execution = resolve(trainer.execution, device)
    return trainer


def open_model(run: Run, device: torch.device, builder: Builder, checkpoint: str = "best") -> LatentVariableModel:
    """Opens a run's model in evaluation mode, with a checkpoint's weights or, if there is one, their moving average."""
    facts = build_transforms(run.config, builder).facts(run_facts(run, builder))
    weights = _evaluated_weights(run, checkpoint, device)
    with torch.device("meta") as meta:  # an untrusted configuration may need too much memory
        _load(build_model(run.config, facts, meta, builder), weights, run, assign=True)
    model = build_model(run.config, facts, device, builder)
    _load(model, weights, run)
    model.to(memory_format=memory_format(device, "float32"))  # type: ignore[call-overload]
    return model.eval()


def read_weights(model: LatentVariableModel, run: Run, checkpoint: str = "best", report: Report | None = None) -> None:
    """Copies the evaluated weights of a run's checkpoint into `model`.

    Args:
        model: the model.
        run: the run.
        checkpoint: "best" or "last".
        report: see `Run.state`.

    Raises:
        UsageError: the weights belong to another architecture.
        RunError: the checkpoint cannot be read.
    """
    _load(model, _evaluated_weights(run, checkpoint, next(model.parameters()).device, report), run)


def _evaluated_weights(
    run: Run, checkpoint: str, device: torch.device, report: Report | None = None
) -> Mapping[str, Any]:
    """The weights of a checkpoint, or their moving average if there is one."""
    state, prefix = run.state(checkpoint, device, report), "module."
    if state["ema"] is None:
        return state["model"]
    return {k.removeprefix(prefix): v for k, v in state["ema"].items() if k.startswith(prefix)}


def _load(model: LatentVariableModel, weights: Mapping[str, Any], run: Run, assign: bool = False) -> None:
    try:
        model.load_state_dict(weights, assign=assign)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UsageError(f"the weights of {run.folder} do not fit this model: {detail}") from error
