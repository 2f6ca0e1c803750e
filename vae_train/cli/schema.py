"""Errors of composed configurations: unknown names, invalid values, and settings without effect."""

import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from vae_train.cli.hints import chosen_hint, experiment_sets, is_training_setting, setting_hint
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.schema import value_error, yaml_text
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import Threads
from vae_train.util.text import did_you_mean

KNOB = {"knob": True}
"""Metadata of fields that only take effect through components that interpolate them."""

MOVING = tuple(f"augmentation.{name}" for name in ("crop", "rotation", "translation"))

CHANGED = {
    "corruption.patch": ("corruption.mask",),
    "corruption.score": ("corruption.mask",),
    "augmentation.edge": MOVING,
}
"""Setting of a transform -> the settings of which at least one must be on for it to have an effect."""

COMMON = {"allow": str | list[str] | None, "threads": Threads | None}
"""Settings of every command, which the command line itself uses."""


def settings_errors(cfg: DictConfig, settings: type) -> list[ErrorDetail]:
    """Values of a command's own settings outside the types and ranges of its dataclass."""
    errors, lists = [], choice_lists(settings)
    for name, hint in (typing.get_type_hints(settings, include_extras=True) | COMMON).items():
        if OmegaConf.is_missing(cfg, name):
            errors.append(ErrorDetail(f"{name}=", "is required"))
            continue
        value = OmegaConf.to_container(cfg[name]) if OmegaConf.is_config(cfg[name]) else cfg[name]
        if name in lists and isinstance(value, list):
            where, message = f"{name}={','.join(map(yaml_text, value))}", _choices_error(value, lists[name])
        else:
            where, message = f"{name}={yaml_text(value)}", value_error(value, hint)
        if message:
            errors.append(ErrorDetail(where, message))
    return errors


def choice_lists(settings: type) -> Mapping[str, Sequence[str]]:
    """The settings of a command that are lists of choices -> their choices. On the command line they need no brackets.

    Args:
        settings: the command's dataclass; such a field has the type `list[Literal["a", "b"]]`.
    """
    hints = {name: (get_origin(hint), *get_args(hint)) for name, hint in typing.get_type_hints(settings).items()}
    items = {name: parts[1] for name, parts in hints.items() if parts[0] is list}
    return {name: get_args(item) for name, item in items.items() if get_origin(item) is Literal}


def _choices_error(values: Sequence[Any], choices: Sequence[str]) -> str | None:
    """Why `values` is not a list of distinct choices; None if it is one."""
    names, listed = list(map(yaml_text, values)), ", ".join(choices)
    if not names:
        return f"is empty; choose from {listed}"
    if unknown := next((name for name in names if name not in choices), None):
        return f"has no choice {unknown}{did_you_mean(unknown, choices)} ({listed})"
    repeated = next((name for name in names if names.count(name) > 1), None)
    return f"names {repeated} twice" if repeated else None


def own_settings(config: Config, settings: type) -> Any:
    """An instance of a command's dataclass; numbers that are names become strings."""
    hints = typing.get_type_hints(settings)
    values = {name: config[name] for name in hints}
    texts = [name for name, hint in hints.items() if {hint, *typing.get_args(hint)} & {str, int} == {str}]
    names = {name: str(values[name]) for name in texts if isinstance(values[name], int | float)}
    return settings(**(values | names))


def component_errors(
    cfg: DictConfig, config: Config, builder: Builder, invalid: set[str], choices: Mapping[str, str]
) -> list[ErrorDetail]:
    """Errors of the components, except for values interpolated from an invalid setting of the command.

    Args:
        cfg: the composed configuration.
        config: the same, resolved.
        builder: locates classes.
        invalid: names of the command's own settings that are invalid.
        choices: group -> the file that was chosen.
    """
    if "latent_dim" in invalid:
        invalid = invalid | {"latent_shape"}
    errors = [e for e in builder.errors(config) if not any(_repeats(cfg, e.where, name) for name in invalid)]
    errors = [e._replace(where=_origin(cfg, e.where)) for e in errors]
    experiment = choices.get("experiment")
    return [_of_experiment(e, str(experiment), choices) if experiment_sets(experiment, e.where) else e for e in errors]


def _of_experiment(error: ErrorDetail, experiment: str, choices: Mapping[str, str]) -> ErrorDetail:
    """Rephrases the error of a setting that comes from an experiment."""
    group = error.where.partition(".")[0]
    chosen = f" with {group}={choices[group]}" if group in choices else ""
    return error._replace(message=f"is set by experiment={experiment} and does not fit{chosen}: {error.message}")


def _origin(cfg: DictConfig, path: str) -> str:
    """The setting that a path only interpolates, as a user types it: `k=-1` for `task.k`; else the path."""
    section, _, key = path.rpartition(".")
    found = re.fullmatch(r"\$\{(\w+)\}", str(_section(cfg, section).get(key)))
    return f"{found[1]}={yaml_text(cfg[found[1]])}" if found else path


def _repeats(cfg: DictConfig, path: str, name: str) -> bool:
    section, _, key = path.rpartition(".")
    return f"${{{name}}}" in str(_section(cfg, section).get(key))


def _section(cfg: DictConfig, path: str) -> dict[str, Any]:
    """The section at a dotted path with its interpolations; empty if there is none."""
    node = OmegaConf.select(cfg, path)
    return OmegaConf.to_container(node) if isinstance(node, DictConfig) else {}  # type: ignore[return-value]


def unread_errors(cfg: DictConfig, settings: type, typed: Sequence[str]) -> list[ErrorDetail]:
    """Typed knobs that no component uses."""
    knobs = [field.name for field in fields(settings) if field.metadata.get("knob") and field.name in typed]
    message = "has no effect: no component of this configuration uses it"
    return [ErrorDetail(f"{knob}={yaml_text(cfg[knob])}", message) for knob in unread_knobs(cfg, knobs)]


def package_errors(cfg: DictConfig) -> list[ErrorDetail]:
    """A logger that would take the place of all loggers, since its file does not say what it is called."""
    if "_target_" not in cfg.get("logger", {}):
        return []
    name = str(cfg.logger["_target_"]).split(".")[-2]
    return [ErrorDetail(f"logger={name}", f"its YAML file needs the first line: # @package logger.{name}")]


def no_effect(typed: Sequence[str], names: Sequence[str], reason: str) -> list[ErrorDetail]:
    """Settings that were typed although another setting makes them meaningless.

    Args:
        typed: the overrides.
        names: settings without effect.
        reason: why, for the message: "without images=true".
    """
    return [ErrorDetail(text, f"has no effect {reason}") for text in typed if text.partition("=")[0] in names]


def inactive_errors(typed: Sequence[str], config: Config) -> list[ErrorDetail]:
    """Settings that were typed although the transform that they modify is off."""
    inactive = {name: needed for name, needed in CHANGED.items() if not any(config.at(path) for path in needed)}
    return [
        error
        for name, needed in inactive.items()
        for error in no_effect(typed, [name], f"without {' or '.join(needed)}")
    ]


def unread_knobs(cfg: DictConfig, knobs: Iterable[str]) -> list[str]:
    """The `knobs` that no other part of the composed configuration interpolates."""
    text = OmegaConf.to_yaml(cfg, resolve=False)
    read = {knob: "latent_shape" if knob == "latent_dim" else knob for knob in knobs}
    return [knob for knob, name in read.items() if not re.search(r"\$\{" + re.escape(name) + r"\}", text)]


def check_key(override: Override, cfg: DictConfig, choices: Mapping[str, str]) -> None:
    """Checks that there is a setting of this name.

    Args:
        override: the setting as typed.
        cfg: the composed configuration.
        choices: group -> the file that was chosen.

    Raises:
        UsageError: there is none, or it is a section.
    """
    key, (section, _, name) = override.key_or_group, override.key_or_group.rpartition(".")
    siblings, paths = _section(cfg, section), _paths(_section(cfg, ""), "")
    if name not in siblings:
        if override.is_add() and "_target_" in siblings:  # the signature says whether there is such a parameter
            return
        if "run" in cfg.keys() and is_training_setting(key):  # noqa: SIM118  (a missing value counts)
            raise UsageError("comes from the run and cannot be changed here")
        raise UsageError(f"no such setting{setting_hint(key, override.value(), paths, choices)}")
    if override.is_add():
        raise UsageError(f"already exists; write {str(override.input_line).lstrip('+')}")
    if isinstance(siblings[name], dict) and not isinstance(override.value(), dict):
        if hint := chosen_hint(key, override.value(), choices):
            raise UsageError(f"is a section{hint}")
        names = ", ".join(str(k) for k in siblings[name] if str(k)[0] != "_")
        raise UsageError(f"is a section {f'with the settings {names}' if names else 'without settings'}")


def _paths(node: Any, path: str) -> Iterable[str]:
    """Dotted paths of all settings, shallow ones first."""
    if not isinstance(node, dict):
        return
    names = {key: f"{path}.{key}" if path else str(key) for key in node if not str(key).startswith("_")}
    yield from names.values()
    for key, name in names.items():
        yield from _paths(node[key], name)
