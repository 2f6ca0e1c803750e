"""Checks that the parts of a model, its objective and the training fit each other, before anything is built.

Every component says what it does not fit (`check_compatible`). This module asks them, and phrases their answers in the
spelling of the command line.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vae_train.util.errors import ErrorDetail, Incompatible

Node = Mapping[str, Any]
"""The settings of a component, with the name of its class as `_target_`."""
Locate = Callable[[str], type]
"""Name of a class -> the class."""


def model_errors(model: Node, levels: int | None, locate: Locate) -> list[ErrorDetail]:
    """Parts of a model that do not fit the data.

    Args:
        model: the node of the model.
        levels: number of values that a pixel can take; None for continuous data.
        locate: finds a class by its name.
    """
    kind, settings = unbuilt(model, locate)
    return [_detail(settings, *error) for error in kind.check_data(levels, **settings).items()]


def combination_errors(model: Node, objective: Node, locate: Locate) -> list[ErrorDetail]:
    """Parts of a model that do not fit each other, and an objective that does not fit the model.

    Args:
        model: the node of the model.
        objective: the node of the objective.
        locate: finds a class by its name.
    """
    kind, settings = unbuilt(model, locate)
    errors = [_detail(settings, *error) for error in kind.check_compatible(**settings).items()]
    target, own = unbuilt(objective, locate)
    error = target.check_compatible(kind.traits(**settings), **own)
    return errors if error is None else [*errors, ErrorDetail(f"objective={stem(target)}", phrase(error))]


def accumulation_errors(grad_accumulation: int, model: Node, objective: Node, locate: Locate) -> list[ErrorDetail]:
    """Components whose loss cannot be computed in microbatches.

    Args:
        grad_accumulation: number of microbatches.
        model: the node of the model.
        objective: the node of the objective.
        locate: finds a class by its name.
    """
    kind, settings = unbuilt(model, locate)
    target, own = unbuilt(objective, locate)
    coupling = {
        f"objective={stem(target)}": target.couples_batch(**own),
        "the model's likelihood": kind.traits(**settings).couples_batch,
    }
    reason = "the loss of {} depends on the whole batch, which cannot be split; use learner.grad_accumulation=1"
    where = f"learner.grad_accumulation={grad_accumulation}"
    return [
        ErrorDetail(where, reason.format(name))
        for name, couples in coupling.items()
        if couples and grad_accumulation > 1
    ]


def capability_errors(required: Mapping[str, str], model: Node, objective: Node, locate: Locate) -> list[ErrorDetail]:
    """Ways of computing that a component does not support.

    Args:
        required: capability (see `vae_train.model.traits.CAPABILITIES`) -> the setting that needs it.
        model: the node of the model.
        objective: the node of the objective.
        locate: finds a class by its name.
    """
    kind, settings = unbuilt(model, locate)
    target, _ = unbuilt(objective, locate)
    supported = {"this model": kind.traits(**settings).capabilities, f"objective={stem(target)}": target.capabilities}
    instead = {"compile": "execution=eager", "bf16": "precision=float32"}
    return [
        ErrorDetail(where, f"{name} does not support it; use {instead[capability]}")
        for capability, where in required.items()
        for name, capabilities in supported.items()
        if capability not in capabilities
    ]


def phrase(error: Incompatible) -> str:
    """An incompatibility as a message, with what to type instead."""
    ways = [f"{_spelling(role)}={value}" for role, value in error.instead.items()]
    if not ways:
        return error.reason
    *others, last = ways
    return f"{error.reason}; use {', '.join(others)} or {last}" if others else f"{error.reason}; use {last}"


def unbuilt(node: Node, locate: Locate) -> tuple[Any, dict[str, Any]]:
    """The class of a node and its settings, in which every component is a `functools.partial`."""
    settings = {str(key): _partial(value, locate) for key, value in node.items() if not str(key).startswith("_")}
    return locate(str(node["_target_"])), settings


def stem(part: type) -> str:
    """The name by which a class is chosen: that of its file."""
    return part.__module__.rpartition(".")[2]


def _partial(value: Any, locate: Locate) -> Any:
    if not isinstance(value, Mapping) or "_target_" not in value:
        return value
    kind, settings = unbuilt(value, locate)
    return partial(kind, **settings)


def _detail(settings: Mapping[str, Any], setting: str, error: Incompatible) -> ErrorDetail:
    """The error of one setting of a model, for instance "prior" or "prior.categories"."""
    value: Any = settings
    for key in setting.split("."):
        value = value.keywords[key] if isinstance(value, partial) else value[key]
    is_choice = isinstance(value, partial)
    where = f"model/{setting}={stem(value.func)}" if is_choice else f"model.{setting}={value}"
    return ErrorDetail(where, phrase(error))


def _spelling(role: str) -> str:
    """A part or a setting as the command line spells it."""
    part, _, rest = role.partition(".")
    if part not in ("posterior", "prior", "likelihood"):
        return role
    return f"model.{role}" if rest else f"model/{part}"
