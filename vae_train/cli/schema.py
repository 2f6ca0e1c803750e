"""Errors of composed configurations: names that do not exist, values that do not fit, settings that nothing reads."""

import re
import typing
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.schema import value_error, yaml_text
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.text import did_you_mean

KNOB = {"knob": True}
"""Metadata of fields that act only through the components that interpolate them."""

COMMON = {"allow": str | None}
"""Settings that every command has and the command line acts on."""


def settings_errors(cfg: DictConfig, settings: type) -> list[ErrorDetail]:
    """Values of a command's own settings that do not fit the types and ranges of a dataclass."""
    errors = []
    for name, hint in (typing.get_type_hints(settings, include_extras=True) | COMMON).items():
        if OmegaConf.is_missing(cfg, name):
            errors.append(ErrorDetail(f"{name}=", "is required"))
            continue
        value = OmegaConf.to_container(cfg[name]) if OmegaConf.is_config(cfg[name]) else cfg[name]
        if message := value_error(value, hint):
            errors.append(ErrorDetail(f"{name}={yaml_text(value)}", message))
    return errors


def own_settings(config: Config, settings: type) -> Any:
    """An instance of a command's dataclass; numbers that name something become texts."""
    hints = typing.get_type_hints(settings)
    values = {name: config[name] for name in hints}
    names = {key: str(value) for key, value in values.items() if value is not None and hints[key] in (str, str | None)}
    return settings(**(values | names))


def component_errors(cfg: DictConfig, config: Config, builder: Builder, invalid: set[str]) -> list[ErrorDetail]:
    """Errors of the components, but for values that only repeat a setting of the command that is invalid.

    Args:
        cfg: the composed configuration.
        config: the same, resolved.
        builder: locates classes.
        invalid: names of the command's own settings that are invalid.
    """
    if "latent_dim" in invalid:
        invalid = invalid | {"latent_shape"}
    return [e for e in builder.errors(config) if not any(_repeats(cfg, e.where, name) for name in invalid)]


def _repeats(cfg: DictConfig, path: str, name: str) -> bool:
    section, _, key = path.rpartition(".")
    return f"${{{name}}}" in str(_section(cfg, section).get(key))


def _section(cfg: DictConfig, path: str) -> dict[str, Any]:
    """The section at a dotted path with its interpolations; empty if there is none."""
    node = OmegaConf.select(cfg, path)
    return OmegaConf.to_container(node) if isinstance(node, DictConfig) else {}  # type: ignore[return-value]


def unread_errors(cfg: DictConfig, settings: type, typed: Sequence[str]) -> list[ErrorDetail]:
    """Typed knobs that no component reads."""
    knobs = [field.name for field in fields(settings) if field.metadata.get("knob") and field.name in typed]
    message = "has no effect: no component of this configuration reads it"
    return [ErrorDetail(f"{knob}={yaml_text(cfg[knob])}", message) for knob in unread_knobs(cfg, knobs)]


def unread_knobs(cfg: DictConfig, knobs: Iterable[str]) -> list[str]:
    """Those of the top-level `knobs` that no other part of the composed configuration interpolates."""
    text = OmegaConf.to_yaml(cfg, resolve=False)
    read = {knob: "latent_shape" if knob == "latent_dim" else knob for knob in knobs}
    return [knob for knob, name in read.items() if not re.search(r"\$\{" + re.escape(name) + r"\}", text)]


def check_key(override: Override, cfg: DictConfig) -> None:
    """Checks that there is a setting of this name.

    Raises:
        UsageError: there is none, or it is a section.
    """
    key, (section, _, name) = override.key_or_group, override.key_or_group.rpartition(".")
    siblings = _section(cfg, section)
    if name in siblings:
        if override.is_add():
            raise UsageError(f"exists already; write {str(override.input_line).lstrip('+')}")
        if isinstance(siblings[name], dict) and not isinstance(override.value(), dict):
            names = ", ".join(str(k) for k in siblings[name] if str(k)[0] != "_")
            raise UsageError(f"{key} is a section with the settings {names}")
    elif not (override.is_add() and "_target_" in siblings):  # the signature says whether there is such a parameter
        paths = list(_paths(_section(cfg, ""), ""))
        last = {path.rpartition(".")[2]: path for path in reversed(paths)}
        hint = did_you_mean(key, paths)
        if not hint and (near := did_you_mean(name, last)):
            hint = f"; did you mean {last[near.removeprefix('; did you mean ').removesuffix('?')]}?"
        raise UsageError(f"no such setting{hint}")


def _paths(node: Any, path: str) -> Iterable[str]:
    """Dotted paths of all settings, shallow ones first."""
    if not isinstance(node, dict):
        return
    names = {key: f"{path}.{key}" if path else str(key) for key in node if not str(key).startswith("_")}
    yield from names.values()
    for key, name in names.items():
        yield from _paths(node[key], name)
