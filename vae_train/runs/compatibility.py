"""Checks that the components of a model, the objective and the training work together, before anything is built.

Components report incompatibilities themselves (`check_compatible`). This module collects the reports and phrases them
in the spelling of the command line.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_type_hints

from vae_train.runs.schema import settings, value_error, yaml_text
from vae_train.util.errors import ErrorDetail, Incompatible

Node = Mapping[str, Any]
"""The settings of a component, with the name of its class as `_target_`."""
Locate = Callable[[str], type]
"""Name of a class -> the class."""


REQUIRED_CAPABILITIES = {
    "execution=compile": ("compile", "execution=eager"),
    "precision=bfloat16": ("bf16", "precision=float32"),
}
"""Setting -> the capability that it needs (see `vae_train.model.traits.CAPABILITIES`), and an alternative."""


def model_errors(model: Node, levels: int | None, locate: Locate, data: Node) -> list[ErrorDetail]:
    """Components of a model that are incompatible with the data.

    Args:
        model: the node of the model.
        levels: number of values that a pixel can take; None for continuous data.
        locate: finds a class by its name.
        data: the node of the data, whose settings are suggested if they would change something.
    """
    kind, hints = unbuilt(model, locate), get_type_hints(locate(str(data["_target_"])), include_extras=True)

    def changes(role: str, value: str) -> bool:
        part, _, name = role.partition(".")
        return part != "data" or (data.get(name, value) != value and not value_error(value, hints.get(name)))

    return [
        _detail(kind, setting, error._replace(instead={r: v for r, v in error.instead.items() if changes(r, v)}))
        for setting, error in kind.func.check_data(levels, **kind.keywords).items()
    ]


def size_errors(model: Node, num_values: int, locate: Locate) -> list[ErrorDetail]:
    """Latents with more values than an image, or more codes.

    Args:
        model: the node of the model.
        num_values: number of values of an image.
        locate: finds a class by its name.
    """
    shape, posterior = model.get("latent_shape", ()), model.get("posterior")
    # The numbers of a code all follow from its index.
    is_quantized = posterior is not None and getattr(locate(posterior["_target_"]), "is_quantized", False)
    size = math.prod(shape[1:] if is_quantized else shape)
    where = f"latent_dim={size}" if len(shape) == 1 else f"latent_shape={list(shape)}".replace(" ", "")
    return [ErrorDetail(where, f"exceeds the {num_values} values per image")] if size > num_values else []


def combination_errors(model: Node, objective: Node, locate: Locate) -> list[ErrorDetail]:
    """Components of a model that are incompatible with each other, and an objective incompatible with the model.

    Args:
        model: the node of the model.
        objective: the node of the objective.
        locate: finds a class by its name.
    """
    kind, target = unbuilt(model, locate), unbuilt(objective, locate)
    errors = [_detail(kind, *error) for error in kind.func.check_compatible(**kind.keywords).items()]
    error = target.func.check_compatible(kind.func.traits(**kind.keywords), **target.keywords)
    return errors if error is None else [*errors, ErrorDetail(f"objective={stem(target.func)}", phrase(error))]


def accumulation_errors(grad_accumulation: int, model: Node, objective: Node, locate: Locate) -> list[ErrorDetail]:
    """Components whose loss cannot be computed in microbatches.

    Args:
        grad_accumulation: number of microbatches.
        model: the node of the model.
        objective: the node of the objective.
        locate: finds a class by its name.
    """
    if grad_accumulation == 1:
        return []
    reason = "the loss of {} depends on the whole batch, which cannot be split; use learner.grad_accumulation=1"
    where = f"learner.grad_accumulation={grad_accumulation}"
    return [ErrorDetail(where, reason.format(name)) for name in coupled(model, objective, locate)]


def coupled(model: Node, objective: Node, locate: Locate, gathered: bool = False) -> list[str]:
    """Components whose loss depends on the whole batch, for messages.

    Args:
        model: the node of the model.
        objective: the node of the objective.
        locate: finds a class by its name.
        gathered: leave out objectives that gather the batch from several processes.
    """
    kind, target = unbuilt(model, locate), unbuilt(objective, locate)
    couples = target.func.couples_batch(**target.keywords) and not (gathered and target.func.gathers)
    coupling = {
        f"objective={stem(target.func)}": couples,
        "the model's likelihood": kind.func.traits(**kind.keywords).couples_batch,
    }
    return [name for name, couples in coupling.items() if couples]


def capability_errors(chosen: Sequence[str], model: Node, objective: Node, locate: Locate) -> list[ErrorDetail]:
    """Modes of execution and precisions that a component does not support.

    Args:
        chosen: settings of the training; only those in `REQUIRED_CAPABILITIES` matter.
        model: the node of the model.
        objective: the node of the objective.
        locate: finds a class by its name.
    """
    kind, target = unbuilt(model, locate), unbuilt(objective, locate).func
    supported = {
        "this model": kind.func.traits(**kind.keywords).capabilities,
        f"objective={stem(target)}": target.capabilities,
    }
    return [
        ErrorDetail(where, f"{name} does not support it; use {instead}")
        for where, (capability, instead) in REQUIRED_CAPABILITIES.items()
        for name, capabilities in supported.items()
        if where in chosen and capability not in capabilities
    ]


def phrase(error: Incompatible) -> str:
    """Phrases an incompatibility as a message that says what to type instead."""
    ways = [f"{_spelling(role)}={value}" for role, value in error.instead.items()]
    if not ways:
        return error.reason
    *others, last = ways
    return f"{error.reason}; use {', '.join(others)} or {last}" if others else f"{error.reason}; use {last}"


def unbuilt(node: Any, locate: Locate) -> Any:
    """Converts a node, and recursively its components, to `functools.partial` objects of their classes."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    arguments = {key: unbuilt(value, locate) for key, value in settings(node).items()}
    return partial(locate(str(node["_target_"])), **arguments)


def stem(part: type) -> str:
    """The name by which a class is chosen, which is that of its file."""
    return part.__module__.rpartition(".")[2]


def _detail(model: Any, setting: str, error: Incompatible) -> ErrorDetail:
    """The error of one setting of a model, for instance "prior" or "prior.categories"."""
    value = model
    for key in setting.split("."):
        value = value.keywords[key]
    is_choice = isinstance(value, partial)
    where = f"model/{setting}={stem(value.func)}" if is_choice else f"model.{setting}={yaml_text(value)}"
    return ErrorDetail(where, phrase(error))


def _spelling(role: str) -> str:
    """A component or a setting in the spelling of the command line."""
    part, _, rest = role.partition(".")
    if part not in ("posterior", "prior", "likelihood"):
        return role
    return f"model.{role}" if rest else f"model/{part}"
