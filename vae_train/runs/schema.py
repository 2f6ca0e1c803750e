"""Checks configurations against constructors: the signature of a class is the schema of its YAML.

All errors are reported at once, before anything is built. `value_error` checks a value against a type hint.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from vae_train.batch import DataFacts
from vae_train.runs.config import Config
from vae_train.runs.defaults import run_epochs
from vae_train.util.errors import ErrorDetail, UsageError, raise_out_of_memory
from vae_train.util.ranges import Range
from vae_train.util.text import did_you_mean

DATA_FACTS = (*DataFacts._fields, *(name for name, value in vars(DataFacts).items() if isinstance(value, property)))
"""Facts about the data that constructors may receive, by the name of the parameter."""

MAX_FLOAT = 3.4028234663852886e38
"""The largest float32."""

NEVER_SET = ("folder", "step")
"""Parameters that no configuration may set: where a run writes, and its progress."""

OWN_KEYS = ("_target_", "_partial_")
"""Keys of a node that are not parameters of its class."""


class RunFacts(NamedTuple):
    """Facts about a run that constructors may receive, by the name of the parameter."""

    seed: int
    epochs: float
    """Length of the run; fractional if the last epoch is cut short."""
    steps_per_epoch: float
    """Optimiser steps in an epoch; may be fractional."""
    folder: Path | None = None
    """Where loggers write."""
    step: int = 0
    """Steps before this process, if the run was resumed."""

    @classmethod
    def of(cls, config: Config, facts: DataFacts) -> RunFacts:
        """The facts about a new run, from its configuration and the facts about its data."""
        epochs = run_epochs(config, facts)
        steps_per_epoch = facts.num_train / epochs.batch_size
        length = epochs.total if epochs.steps is None else epochs.steps / steps_per_epoch
        return cls(config["seed"], length, steps_per_epoch)


def schema_errors(config: Config, locate: Callable[[str], type]) -> list[ErrorDetail]:
    """All errors in the nodes of a configuration, with dotted paths.

    Args:
        config: the whole configuration.
        locate: finds a class by its dotted name, see `vae_train.runs.build.Builder.locate`.
    """
    components = frozenset(key for key, node in config.items() if isinstance(node, Mapping) and "_target_" in node)
    errors: list[ErrorDetail] = []
    for node in nodes(config):
        try:
            errors += _node_errors(node, locate(str(node["_target_"])), components)
        except UsageError as error:
            raise_out_of_memory(error)
            errors += [e._replace(where=f"{node.path}._target_") for e in error.errors]
    return errors


def settings(node: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a node sets."""
    return {str(key): value for key, value in node.items() if key not in OWN_KEYS}


def parameters(target: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters by name, without self."""
    signature = inspect.signature(target)
    return {name: p for name, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD}


def yaml_text(value: Any) -> str:
    """Formats a value as in YAML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_text, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def value_error(value: Any, hint: Any) -> str | None:
    """Why `value` does not match a type hint, or None if it does. Hints that do not constrain values match all."""
    origin = get_origin(hint)
    if origin is Annotated:
        base, *marks = get_args(hint)
        error = value_error(value, base)
        if error or not isinstance(value, int | float):
            return error
        ranges = (mark for mark in marks if isinstance(mark, Range) and value not in mark)
        return next((f"is {_quoted(value)}, must be {mark}" for mark in ranges), None)
    if origin is Literal:
        options = get_args(hint)
        fits = any(value == option and type(value) is type(option) for option in options)  # 3.0 and true are no 3 and 1
        return None if fits else f"is {_quoted(value)}, must be one of {', '.join(map(yaml_text, options))}"
    if origin in (Union, types.UnionType):
        return _union_error(value, get_args(hint))
    if origin in (list, tuple, Sequence):
        return _list_error(value, origin, get_args(hint))
    if hint not in _SCALARS:
        return None
    if hint is float and isinstance(value, int | float) and not abs(value) <= MAX_FLOAT:
        return f"is {_quoted(value)}, must be finite" + (
            "" if abs(value) == math.inf or value != value else " in float32"
        )
    kinds, name = _SCALARS[hint]
    fits = isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
    return None if fits else f"is {_quoted(value)}, expected {name}"


_SCALARS: Mapping[Any, tuple[Any, str]] = {
    float: (int | float, "a number"),
    int: (int, "a whole number"),
    str: (str | int | float, "a string"),  # a name may look like a number
    bool: (bool, "true or false"),
    type(None): (type(None), "null"),
}


def _quoted(value: Any) -> str:
    """`yaml_text` with quotes around strings, since '1' is not 1."""
    return repr(value) if isinstance(value, str) else yaml_text(value)


def _union_error(value: Any, options: tuple[Any, ...]) -> str | None:
    errors = [value_error(value, option) for option in options]
    if None in errors:
        return None
    # A range describes what was meant better than "expected null".
    near = [e.partition("must be ")[2] for e in errors if e and "must be" in e]
    expected = dict.fromkeys(e.rpartition("expected ")[2] for e in errors if e and "expected" in e)
    if near:
        # A number out of range was meant as a number, but an unknown choice may have been meant as another type.
        others = [e for e in expected if e != "null"] if all(e.startswith("one of") for e in near) else []
        return f"is {_quoted(value)}, must be {' or '.join([*near, *others])}"
    return f"is {_quoted(value)}, expected {' or '.join(expected)}"


def _list_error(value: Any, origin: Any, items: tuple[Any, ...]) -> str | None:
    if not isinstance(value, list | tuple):
        return f"is {_quoted(value)}, expected a list"
    if origin is tuple and items and items[-1] is not Ellipsis:
        if len(value) != len(items):
            return f"is {_quoted(value)}, expected {len(items)} values"
        pairs = list(zip(value, items, strict=True))
    else:
        pairs = [(item, items[0]) for item in value] if items else []
    return next((f"is {_quoted(value)}: {e}" for e in (value_error(item, hint) for item, hint in pairs) if e), None)


def nodes(tree: Any) -> Iterator[Config]:
    """All sections with a `_target_`, outermost first."""
    if isinstance(tree, Config) and "_target_" in tree:
        yield tree
    for child in tree.values() if isinstance(tree, Config) else tree if isinstance(tree, tuple) else ():
        yield from nodes(child)


@cache
def _hints(target: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__, include_extras=True)  # type: ignore[misc]
    except (NameError, TypeError, AttributeError):
        return {}  # hints of some classes of PyTorch do not resolve; their own constructors check the values


def _node_errors(node: Config, target: type, components: frozenset[str]) -> Iterator[ErrorDetail]:
    known, chosen = parameters(target), settings(node)
    for key, value in chosen.items():
        if key not in known:
            message = f"{target.__module__}.{target.__name__} has no such parameter{did_you_mean(key, known)}"
            yield ErrorDetail(f"{node.path}.{key}", message)
        elif key in NEVER_SET:
            yield ErrorDetail(f"{node.path}.{key}", "is filled in by vae and cannot be set")
        elif error := value_error(value, _hints(target).get(key, Any)):
            yield ErrorDetail(f"{node.path}.{key}", error)
    filled_in = injected(target, bool(node.get("_partial_"))) | components
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in chosen and key not in filled_in:
            yield ErrorDetail(f"{node.path}.{key}", f"is missing; {target.__name__} needs it")


def injected(target: type, partial: bool) -> frozenset[str]:
    """Parameters that no YAML sets: facts about data and run, and the shapes that a parent passes to its components.

    Args:
        target: a class.
        partial: whether a parent builds the node. The parent then fills in the parameters of the
            node's base class, such as `Network(in_shape, out_shape)`.
    """
    names = {*DATA_FACTS, *RunFacts._fields}
    if partial:
        bases = [base for base in target.__mro__ if base.__module__.startswith(("vae_train.", "torch.optim"))]
        names |= set(parameters(bases[-1])) if bases else set()
    return frozenset(names)


def known(facts: DataFacts, run: RunFacts | None = None) -> dict[str, Any]:
    """The facts that constructors may receive, by name; see `injected`."""
    return {name: getattr(facts, name) for name in DATA_FACTS} | ({} if run is None else run._asdict())
