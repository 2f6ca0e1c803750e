"""Hydra's view of the configuration folders: parses overrides, and composes the valid ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from vae_train.cli import schema
from vae_train.cli.hints import choice_hint, group_hint, is_training_setting
from vae_train.cli.parsing import as_typed, parse, text_of
from vae_train.util.errors import ErrorDetail, UsageError, collecting

Composed = dict[tuple[str, ...], tuple[DictConfig, Mapping[str, str]]]
"""Choices -> the composed configuration and the chosen file of every group."""

LISTS = ("logger",)
"""Groups that also take several choices, [A,B]."""


def with_values(cfg: DictConfig, values: Sequence[Override]) -> DictConfig:
    """A copy of a composed configuration with other values. Composing again would take Hydra 0.1 s or more."""
    cfg = copy.deepcopy(cfg)
    for override in values:
        OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True, force_add=override.is_add())
    return cfg


class Reader:
    """Hydra's view of the configuration folders.

    Args:
        command: name of the primary configuration.
        settings: see `compose_jobs`.
        config_dir: another folder of YAML files.
        all_of: groups of which every file is composed, each with its package. `vae eval` composes all of `metric` into
            `metrics`, those of `config_dir` included.
        composed: see `compose_jobs`.
    """

    def __init__(
        self,
        command: str,
        settings: type,
        config_dir: str | None,
        all_of: Mapping[str, str],
        composed: Composed | None = None,
    ) -> None:
        self.composed: Composed = {} if composed is None else composed  # jobs of a sweep share most of it
        self.command, self.own = command, {field.name for field in fields(settings)}
        self.reads_run = "run" in self.own
        self.choice_lists = schema.choice_lists(settings)
        if config_dir is not None and not Path(config_dir).is_dir():
            raise UsageError([ErrorDetail(f"--config-dir {config_dir}", "no such folder")])
        self.search = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
        self.loader = GlobalHydra.instance().config_loader()
        self.parser = OverridesParser.create(config_loader=self.loader)
        self.added = tuple(
            f"+{group}@{package}.{name}={name}" for group, package in all_of.items() for name in self._options(group)
        )
        self.options = cache(self._options)

    def parse(
        self, typed: Sequence[str], multirun: bool, errors: list[ErrorDetail], works: Callable[[str], bool]
    ) -> list[Override]:
        """The overrides that can be parsed, one per key; `errors` receives the errors of the others."""
        parsed: dict[str, Override] = {}
        search = any(text.startswith("search=") for text in typed)
        for text in typed:
            with collecting(errors, text):
                override = parse(text, self.parser, multirun, works, self.choice_lists, search)
                if override.key_or_group in parsed:
                    raise UsageError(f"{override.key_or_group} is given twice")
                parsed[override.key_or_group] = override
        return list(parsed.values())

    def compose(
        self, job: Sequence[str], errors: list[ErrorDetail]
    ) -> tuple[DictConfig, Mapping[str, str], list[Override]]:
        """The composed configuration, the chosen file of every group, and the valid overrides.

        Args:
            job: overrides; invalid ones are left out.
            errors: receives the errors of invalid ones.

        Raises:
            HydraException, OmegaConfBaseException: the files do not compose, or a value does not fit.
        """
        groups, values, valid = list[Override](), list[Override](), list[Override]()
        for override in map(self.parser.parse_override, job):
            if not self.options(override.key_or_group) and "/" not in override.key_or_group:
                values.append(override)
                continue
            with collecting(errors, as_typed(text_of(override))):
                self._check_choice(override)
                groups.append(override)
        for override in [override for override in groups if "/" in override.key_or_group]:
            if message := self._unused(override.key_or_group, groups):
                errors.append(ErrorDetail(as_typed(text_of(override)), message))
                groups.remove(override)
        cfg, choices = self.choose(*map(text_of, groups))
        for override in values:
            with collecting(errors, as_typed(text_of(override))):
                schema.check_key(override, cfg, choices)
                valid.append(override)
        return with_values(cfg, valid), choices, [*groups, *valid]

    def _options(self, group: str) -> list[str]:
        """The choices of a group; empty if there is no such group, or if the command has a setting of this name."""
        return [] if group in self.own else self.loader.get_group_options(group, overrides=self.search)

    def choose(self, *groups: str) -> tuple[DictConfig, Mapping[str, str]]:
        """The configuration with some choices, and the chosen file of every group; composing takes Hydra 0.1 s."""
        if groups not in self.composed:
            cfg = compose(self.command, overrides=[*groups, *self.added, *self.search], return_hydra_config=True)
            with open_dict(cfg):
                self.composed[groups] = cfg, dict(cfg.pop("hydra").runtime.choices)
        return self.composed[groups]

    def _unused(self, group: str, chosen: Sequence[Override]) -> str | None:
        """Why a group below another one, for instance objective/beta_schedule, has no effect beside the chosen ones."""
        parent = group.partition("/")[0]
        above = [text_of(override) for override in chosen if override.key_or_group in (parent, "experiment")]
        if group in self.choose(*above)[1]:
            return None
        having = [name for name in self.options(parent) if group in self.choose(f"{parent}={name}")[1]]
        instead = f"; it is a group of {parent}={', '.join(having)}" if having else ""
        return f"has no effect with {' '.join(above)}{instead}"

    def _check_choice(self, override: Override) -> None:
        group, value, options = override.key_or_group, override.value(), self.options(override.key_or_group)
        if not options:
            raise UsageError(f"no such group{group_hint(group, str(value))}")
        if self.reads_run and is_training_setting(group):
            raise UsageError("comes from the run and cannot be changed here")
        if isinstance(value, list) and group not in LISTS:
            raise UsageError(f"takes one choice; for a run with each add -m: {group}={','.join(map(str, value))}")
        if value is None or value == []:
            raise UsageError(f"cannot be {'null' if value is None else 'empty'}; choose from {', '.join(options)}")
        for choice in map(str, value if isinstance(value, list) else [value]):
            if choice not in options:
                kind = group.replace("/", " ").replace("_", " ")
                raise UsageError(f"no such {kind}{choice_hint(group, choice, options)} ({', '.join(options)})")
