"""What was typed -> composed configurations, or every mistake in it.

Hydra stops at the first mistake and takes `+foo=1` in silence. Here every word is looked at by itself, the valid ones
are composed, and the result is checked as a whole.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vae_train.runs.schema import allowed, conf_dir, did_you_mean, schema_errors, shown, unread_knobs, value_error
from vae_train.util.errors import ErrorDetail, UsageError

Check = Callable[[DictConfig, Sequence[str]], list[ErrorDetail]]


class Checked(NamedTuple):
    """What a command is to do."""

    jobs: list[list[str]]
    """The overrides of every job."""
    whole: DictConfig | None
    """The configuration of the only job, with Hydra's own node; None where Hydra has to compose: for a sweep, and where
    Hydra's own settings are given."""
    added: list[str]
    """Overrides that were not typed: those of `all_of`."""


def checked(
    command: str,
    words: Sequence[str],
    settings: type,
    check: Check,
    *,
    found: Sequence[ErrorDetail] = (),
    sweep: bool = False,
    config_dir: str | None = None,
    all_of: Mapping[str, str] | None = None,
) -> Checked:
    """Composes and checks every job that the words stand for.

    Args:
        command: name of the primary configuration.
        words: overrides as typed.
        settings: a dataclass whose fields are the command's own knobs, with their types and ranges.
        check: looks for what only the command knows; called for jobs without other mistakes.
        found: mistakes that are known already.
        sweep: whether commas make several jobs.
        config_dir: a further folder of YAML files.
        all_of: groups of which every option is composed, see `_Reader`.

    Raises:
        UsageError: something is wrong; lists every mistake of every job, each once.
    """
    with _hydra():
        reader = _Reader(command, config_dir, all_of)
        overrides, unread = reader.parse(words, sweep)
        errors = [*found, *unread]
        jobs = BasicSweeper.split_arguments(overrides, None)[0] if sweep else [[_text(o) for o in overrides]]
        for job in jobs:
            errors += _job_errors(reader, job, settings, check)
        if errors:
            raise UsageError(list(dict.fromkeys(errors)))
        return Checked(jobs, None if sweep else reader.whole(overrides), reader.added)


def _job_errors(reader: _Reader, job: list[str], settings: type, check: Check) -> list[ErrorDetail]:
    groups, values, unknown = reader.known(job)
    cfg, why = reader.compose(groups, values)
    if cfg is None:
        return [*unknown, ErrorDetail(" ".join(job), why)]
    found = _settings_errors(cfg, settings)
    valid = [_text(override) for override in (*groups, *values)]
    typed = {override.key_or_group for override in values}
    found += _signature_errors(cfg, {m.where.partition("=")[0] for m in found})
    shapes = [_text(o) for o in values if o.key_or_group == "latent_shape" and o.value() is not None]
    found += [ErrorDetail(text, "is mutually exclusive with latent_dim") for text in shapes if "latent_dim" in typed]
    if shapes:
        typed.discard("latent_dim")  # reported as mutually exclusive, so not as unread
    knobs = [name for name in reader.knobs(settings) if name in typed and not cfg.get("resume")]
    found += [
        ErrorDetail(f"{knob}={cfg[knob]}", "has no effect here: nothing in the composed configuration reads it")
        for knob in unread_knobs(cfg, knobs)
    ]
    # A check of the whole supposes that the parts are right. (Unknown words have been left out of it.)
    return unknown + (found or check(cfg, valid))


def _settings_errors(cfg: DictConfig, settings: type) -> list[ErrorDetail]:
    """Values of the command's own knobs that do not fit their types and ranges."""
    import typing

    hints = typing.get_type_hints(settings, include_extras=True)
    found = []
    for name, hint in hints.items():
        if OmegaConf.is_missing(cfg, name):
            found.append(ErrorDetail(f"{name}=", "is needed"))
            continue
        wrong = value_error(_plain(cfg[name]), hint)
        if wrong:
            found.append(ErrorDetail(f"{name}={shown(_plain(cfg[name]))}", wrong))
    return found


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _signature_errors(cfg: DictConfig, known: set[str]) -> list[ErrorDetail]:
    """Mistakes of the components, but for values that only repeat a top-level knob which is wrong already."""
    try:
        found = schema_errors(cfg, allowed(cfg))
    except OmegaConfBaseException as error:
        return [ErrorDetail("", f"the configuration cannot be resolved: {str(error).splitlines()[0]}")]
    return [m for m in found if not any(_repeats(cfg, m.where, knob) for knob in known)]


def _repeats(cfg: DictConfig, path: str, knob: str) -> bool:
    parent, _, key = path.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig) or key not in node:
        return False
    raw = OmegaConf.to_container(node, resolve=False)
    shape = str(OmegaConf.to_container(cfg, resolve=False).get("latent_shape"))  # type: ignore[union-attr]
    return isinstance(raw, dict) and f"${{{knob}}}" in str(raw[key]).replace("${latent_shape}", shape)


class _Reader:
    """Hydra's view of the configuration folders.

    Args:
        command: name of the primary configuration.
        config_dir: a further folder of YAML files.
        all_of: groups of which every option is composed, each with its package. `vae eval` composes all of `metric`
            into `metrics`, those of `config_dir` included: a new metric is a Python file and a YAML, in no list.
    """

    def __init__(self, command: str, config_dir: str | None, all_of: Mapping[str, str] | None = None) -> None:
        self.command = command
        if config_dir is not None and not Path(config_dir).is_dir():
            raise UsageError([ErrorDetail(f"--config-dir {config_dir}", "there is no such folder")])
        self.search = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
        self.loader = GlobalHydra.instance().config_loader()
        self.parser = OverridesParser.create(config_loader=self.loader)
        self.added = [
            f"+{group}@{package}.{name}={name}"
            for group, package in (all_of or {}).items()
            for name in self._options(group)
        ]
        self.choose, self.options = cache(self._choose), cache(self._options)  # jobs of a sweep share most of both

    def parse(self, words: Sequence[str], sweep: bool) -> tuple[list[Override], list[ErrorDetail]]:
        """The words that can be read, one per key, and what is wrong with the others."""
        read: dict[str, Override] = {}
        found = []
        for word in words:
            if "=" not in word and not word.startswith("~"):
                found.append(ErrorDetail(word, "is not a setting: settings look like beta=4, flags like --help"))
                continue
            try:
                override = self.parser.parse_override(word)
            except HydraException as error:
                found.append(ErrorDetail(word, f"cannot be read: {str(error).splitlines()[0]} (quote it: '{word}')"))
                continue
            key = override.key_or_group
            if override.is_delete():
                found.append(ErrorDetail(word, "nothing can be taken away: give another value or choice"))
            elif override.is_sweep_override() and not sweep:
                found.append(ErrorDetail(word, "stands for several runs, which -m makes (a list is written [1,2])"))
            elif key in read:
                found.append(ErrorDetail(word, f"{key} is given twice"))
            else:
                read[key] = override
        return list(read.values()), found

    def known(self, job: list[str]) -> tuple[list[Override], list[Override], list[ErrorDetail]]:
        """The choices and the values that exist, and what is wrong with the other words."""
        groups, values = [], []
        read = [self.parser.parse_override(word) for word in job]
        found = self._errors_about_hydra([override for override in read if _is_hydras(override)])
        for override in (override for override in read if not _is_hydras(override)):
            options = self.options(override.key_or_group)
            if not options and "/" not in override.key_or_group:
                values.append(override)
                continue
            wrong = self._group_error(override, options)
            if wrong:
                found.append(wrong)
            else:
                groups.append(override)
        cfg, _, why = self.choose(*map(_text, groups))
        if cfg is None:
            return [], [], [*found, ErrorDetail(" ".join(map(_text, groups)), why)]
        wrongs = [_key_error(override, cfg) for override in values]
        found += [wrong for wrong in wrongs if wrong]
        return groups, [value for value, wrong in zip(values, wrongs, strict=True) if not wrong], found

    def compose(self, groups: Sequence[Override], values: Sequence[Override] = ()) -> tuple[DictConfig | None, str]:
        """The composed configuration, or None and why there is none."""
        cfg, _, why = self.choose(*map(_text, groups))
        if cfg is None:
            return None, why
        try:
            return with_values(cfg, values), ""
        except HydraException as error:
            return None, str(error).splitlines()[0]

    def whole(self, overrides: Sequence[Override]) -> DictConfig | None:
        """What Hydra composes of overrides that are all known, with its own node; None where they are about that."""
        if any(map(_is_hydras, overrides)):
            return None
        groups = [_text(override) for override in overrides if self.options(override.key_or_group)]
        cfg, hydra, _ = self.choose(*groups)
        assert cfg is not None
        cfg = with_values(cfg, [override for override in overrides if _text(override) not in groups])
        with open_dict(cfg):
            cfg.hydra = hydra  # a copy of it
        words = cfg.hydra.job.config.override_dirname
        cfg.hydra.overrides.task = [_text(override) for override in overrides]
        cfg.hydra.job.override_dirname = get_overrides_dirname(
            list(overrides), words.exclude_keys, words.item_sep, words.kv_sep
        )
        return cfg

    def knobs(self, settings: type) -> list[str]:
        """Top-level settings that only act through the components that read them."""
        return [field.name for field in fields(settings) if field.metadata.get("knob")]

    def _options(self, group: str) -> list[str]:
        """The choices of a group; empty where there is no such group."""
        return self.loader.get_group_options(group, overrides=self.search)

    def _choose(self, *words: str) -> tuple[DictConfig | None, Any, str]:
        """The configuration with these choices and Hydra's own node, or None twice and why there is none."""
        try:
            cfg = compose(self.command, overrides=[*words, *self.added, *self.search], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            return None, None, str(error).splitlines()[0]
        with open_dict(cfg):
            return cfg, cfg.pop("hydra"), ""

    def _group_error(self, override: Override, options: list[str]) -> ErrorDetail | None:
        key, value = override.key_or_group, override.value()
        if not options:
            return ErrorDetail(_text(override), f"there is no group {key}{did_you_mean(key, self._groups())}")
        names = value if isinstance(value, list) else [value]
        for name in names:
            if name is None:
                return ErrorDetail(_text(override), f"is a choice and cannot be null ({', '.join(options)})")
            if str(name) not in options:
                hint = did_you_mean(str(name), options)
                what = key.replace("/", " ").replace("_", " ")
                return ErrorDetail(_text(override), f"no such {what}{hint} ({', '.join(options)})")
        return None

    def _errors_about_hydra(self, overrides: Sequence[Override]) -> list[ErrorDetail]:
        """What Hydra itself cannot be told."""
        mode = [ErrorDetail(_text(o), "is what -m says") for o in overrides if o.key_or_group == "hydra.mode"]
        groups = [self._group_error(o, self.options(o.key_or_group)) for o in overrides if "/" in o.key_or_group]
        found = mode + [wrong for wrong in groups if wrong]
        words = [_text(override) for override in overrides]
        if words and not found:
            cfg, _, why = self.choose(*words)
            found = [] if cfg is not None else [ErrorDetail(" ".join(words), f"is not for Hydra: {why}")]
        return found

    def _groups(self) -> list[str]:
        folder = conf_dir()
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir()]


def _key_error(override: Override, cfg: DictConfig) -> ErrorDetail | None:
    """Why a setting of this name cannot be given, or None where it can."""
    key, text = override.key_or_group, _text(override)
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if isinstance(node, DictConfig):
        raw = OmegaConf.to_container(node, resolve=False)
        assert isinstance(raw, dict)
        if name in raw:
            if override.is_add():
                return ErrorDetail(text, f"exists already: write {text.lstrip('+')}")
            if isinstance(raw[name], dict) and not isinstance(override.value(), dict):
                return ErrorDetail(
                    text, f"{key} is a group of settings: {', '.join(k for k in raw[name] if k[0] != '_')}"
                )
            return None
        if override.is_add() and "_target_" in raw:
            return None  # the signature says whether there is such a parameter
    paths = list(_paths(OmegaConf.to_container(cfg, resolve=False), ""))
    last = {path.rpartition(".")[2]: path for path in reversed(paths)}
    hint = did_you_mean(key, paths)
    if not hint and (near := did_you_mean(name, last)):
        hint = f"; did you mean {last[near.removeprefix('; did you mean ').removesuffix('?')]}?"
    return ErrorDetail(text, f"no such setting{hint}")


def _paths(node: Any, path: str) -> Iterable[str]:
    """Dotted paths of all settings, the shallow ones first."""
    if not isinstance(node, dict):
        return
    names = {key: f"{path}.{key}" if path else str(key) for key in node if not str(key).startswith("_")}
    yield from names.values()
    for key, name in names.items():
        yield from _paths(node[key], name)


def with_values(cfg: DictConfig, values: Sequence[Override]) -> DictConfig:
    """A copy of a composed configuration with other values.

    To compose takes Hydra a tenth of a second and more, so that jobs of a sweep which choose the same files share that.

    Raises:
        HydraException: a value does not fit in.
    """
    cfg = copy.deepcopy(cfg)
    ConfigLoaderImpl._apply_overrides_to_config(list(values), cfg)
    fill_latents(cfg)
    return cfg


def fill_latents(cfg: DictConfig) -> None:
    """Fills in the one of `latent_dim` and `latent_shape` that is not set, so that components may read both."""
    if "latent_shape" not in cfg:
        return
    shape = cfg.latent_shape
    if shape is None:
        cfg.latent_shape = ["${latent_dim}"]
    elif OmegaConf.is_list(shape) and all(isinstance(size, int) for size in shape):
        cfg.latent_dim = math.prod(shape)


def _text(override: Override) -> str:
    return str(override.input_line)


def _is_hydras(override: Override) -> bool:
    """Whether it is about Hydra and not about us."""
    return override.key_or_group.startswith(("hydra.", "hydra/"))


@contextmanager
def _hydra() -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield
