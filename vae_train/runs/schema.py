"""YAML -> checked -> objects. The signature of a class is the schema of its YAML.

`schema_errors` compares every `_target_` node with the signature and the type hints of its class and reports everything
that is wrong at once; `build` then calls the constructors.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import Range

TRUSTED = ("vae_train", "torch.optim", "torch.nn")
"""A configuration may name classes of these packages alone; `allow=` on the command line adds to them."""

INJECTED = (
    *("data_shape", "levels", "steps_per_epoch", "epochs", "seed", "folder", "step"),
    *("in_shape", "out_shape", "event_shape", "params", "factor_sizes", "num_train"),
    *("model", "objective", "optimizer", "lr_schedule", "gradients"),
)
"""Arguments that the program fills in, which no YAML gives."""


def conf_dir() -> Path:
    """The folder of the YAML files: within the package when installed from a wheel, beside it in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else inside.parents[1] / "conf"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean x?", or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def allowed(cfg: DictConfig) -> list[str]:
    """The further package whose classes a configuration may name, as a list."""
    return [cfg.allow] if cfg.get("allow") else []


def locate(target: str, allow: Sequence[str] = ()) -> type:
    """The class called `target`.

    A configuration comes from other people's runs too, so the name must lie in a trusted package before anything is
    imported, and what it leads to must be a class that is itself defined there.

    Raises:
        UsageError: there is no such class, or it is not trusted.
    """
    trusted = (*TRUSTED, *allow)
    if not _inside(target, trusted):
        raise UsageError(
            f"the configuration names the foreign class {target}; only classes of {', '.join(trusted)} are built. "
            f"If you trust it, add allow={target.split('.')[0]} to the command line"
        )
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"there is no class {target} ({error})") from error
    if not inspect.isclass(found) or not _inside(found.__module__, trusted):
        raise UsageError(f"{target} is not a class of {', '.join(trusted)}")
    return found


def schema_errors(cfg: DictConfig, allow: Sequence[str] = ()) -> list[ErrorDetail]:
    """Everything that is wrong with the `_target_` nodes of a configuration, each with its dotted path."""
    found: list[ErrorDetail] = []
    for path, node in _targets(OmegaConf.to_container(cfg, resolve=True), ""):
        try:
            found += _compare(path, node, locate(str(node["_target_"]), allow))
        except UsageError as error:
            found.append(ErrorDetail(f"{path}._target_", str(error)))
    return found


def build(node: DictConfig, allow: Sequence[str] = (), **injected: Any) -> Any:
    """Calls the constructor of a `_target_` node, of the nodes within it first.

    Args:
        node: the node, resolved or not; `_partial_: true` gives a function that waits for more arguments.
        allow: further packages whose classes may be built.
        injected: arguments that only the program knows; a constructor gets those that it names.

    Raises:
        UsageError: a constructor raised ValueError; the mistake has the dotted path of its node.
    """
    path = str(node._get_full_key(None) or "")
    return _construct(OmegaConf.to_container(node, resolve=True), allow, injected, path)


def parameters(target: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class by name, without self."""
    signature = inspect.signature(target)
    return {name: p for name, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD}


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _said(value: Any) -> str:
    """`shown`, with quotes around a text, since '1' is not 1."""
    return repr(value) if isinstance(value, str) else shown(value)


def value_error(value: Any, hint: Any) -> str | None:
    """Why `value` does not fit the type hint, or None where it does. Hints that say nothing of values fit all."""
    origin = get_origin(hint)
    if origin is Annotated:
        base, *marks = get_args(hint)
        wrong = value_error(value, base)
        if wrong or not isinstance(value, int | float):
            return wrong
        return next((f"is {_said(value)}, must be {m}" for m in marks if isinstance(m, Range) and value not in m), None)
    if origin is Literal:
        options = get_args(hint)
        fits = any(value == option and type(value) is type(option) for option in options)  # 3.0 and true are no 3 and 1
        return None if fits else f"is {_said(value)}, must be one of {', '.join(map(shown, options))}"
    if origin in (Union, types.UnionType):
        return _union_error(value, get_args(hint))
    if hint in (type(None), None):
        return None if value is None else f"is {_said(value)}, expected null"
    if origin in (list, tuple, Sequence):
        return _list_error(value, origin, get_args(hint))
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif hint is str:
        fits = isinstance(value, str | int | float) and not isinstance(value, bool)  # a name may look like a number
    elif hint is bool:
        fits = isinstance(value, bool)
    else:
        return None
    return None if fits else f"is {_said(value)}, expected {_NAMES[hint]}"


_NAMES: Mapping[Any, str] = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}


def _union_error(value: Any, options: tuple[Any, ...]) -> str | None:
    wrong = [value_error(value, option) for option in options]
    if None in wrong:
        return None
    # A range is nearer to what was meant than "expected null".
    near = [w.partition("must be ")[2] for w in wrong if w and "must be" in w]
    expected = dict.fromkeys(w.rpartition("expected ")[2] for w in wrong if w and "expected" in w)
    if near:
        # A number that is out of a range was meant as a number; what is no name of a choice may be of another type.
        others = [e for e in expected if e != "null"] if all(w.startswith("one of") for w in near) else []
        return f"is {_said(value)}, must be {' or '.join([*near, *others])}"
    return f"is {_said(value)}, expected {' or '.join(expected)}"


def _list_error(value: Any, origin: Any, items: tuple[Any, ...]) -> str | None:
    if not isinstance(value, list | tuple):
        return f"is {_said(value)}, expected a list"
    if origin is tuple and items and items[-1] is not Ellipsis:
        if len(value) != len(items):
            return f"is {_said(value)}, expected {len(items)} values"
        pairs = list(zip(value, items, strict=True))
    else:
        pairs = [(v, items[0]) for v in value] if items else []
    return next((f"is {_said(value)}: {w}" for w in (value_error(v, hint) for v, hint in pairs) if w), None)


def _inside(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def _targets(node: Any, path: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """All nodes with a `_target_`, outermost first, with their dotted paths."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _targets(value, f"{path}[{number}]")


@cache
def _hints(target: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__, include_extras=True)  # type: ignore[misc]
    except (NameError, TypeError, AttributeError):
        return {}  # a class of PyTorch whose hints do not resolve: its own constructor speaks


def _compare(path: str, node: dict[str, Any], target: type) -> Iterable[ErrorDetail]:
    known = parameters(target)
    given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    for key, value in given.items():
        if key not in known:
            hint = did_you_mean(key, known)
            yield ErrorDetail(f"{path}.{key}", f"{target.__module__}.{target.__name__} has no such parameter{hint}")
            continue
        wrong = value_error(value, _hints(target).get(key, Any))
        if wrong:
            yield ErrorDetail(f"{path}.{key}", wrong)
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in given and key not in INJECTED:
            yield ErrorDetail(f"{path}.{key}", f"{target.__name__} needs it")


def _construct(node: Any, allow: Sequence[str], injected: dict[str, Any], path: str) -> Any:
    if isinstance(node, list):
        return [_construct(item, allow, injected, f"{path}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    given = {k: v for k, v in node.items() if k not in ("_target_", "_partial_")}
    arguments = {k: _construct(v, allow, injected, f"{path}.{k}") for k, v in given.items()}
    if "_target_" not in node:
        return arguments
    part = Partial(locate(str(node["_target_"]), allow), arguments, path)
    if node.get("_partial_"):
        return part
    return part(**{k: v for k, v in injected.items() if k in parameters(part.target)})


class Partial:
    """A constructor with some of its arguments, which knows where in the configuration it stands."""

    def __init__(self, target: type, arguments: dict[str, Any], path: str) -> None:
        self.target, self.arguments, self.path = target, arguments, path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the constructor; a ValueError becomes a UsageError with the dotted path of the node."""
        try:
            return self.target(*args, **(kwargs | self.arguments))
        except ValueError as error:
            raise UsageError([ErrorDetail(self.path, str(error))]) from error


def unread_knobs(raw: DictConfig, knobs: Iterable[str]) -> list[str]:
    """Those of the top-level `knobs` that no other part of the composed, unresolved configuration reads."""
    text = OmegaConf.to_yaml(raw, resolve=False)
    return [knob for knob in knobs if not re.search(r"\$\{" + re.escape(knob) + r"\}", text)]
