"""Turns typed overrides into composed and resolved configurations, or lists every error in them.

Hydra stops at the first error and accepts `+foo=1` silently. Here every override is checked separately, the valid ones
are composed, and the result is compared with signatures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vae_train.cli import schema
from vae_train.cli.hints import choice_hint, group_hint, is_training_setting
from vae_train.cli.hydra_compat import conf_dir
from vae_train.cli.jobs import NO_JOBS, Job, StoredJobs
from vae_train.cli.linked import fill_latent_shape, fill_length
from vae_train.cli.parsing import as_typed, jobs_of, parse, text_of, with_brackets, with_text
from vae_train.cli.space import space_of
from vae_train.data.session import DataSession
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.packages import make_importable
from vae_train.training.ranks import ALONE, Ranks
from vae_train.util.errors import ErrorDetail, UsageError, collecting
from vae_train.util.text import first_line

LISTS = ("logger",)
"""Groups that also take several choices, [A,B]."""


def compose_jobs(
    command: str,
    typed: Sequence[str],
    settings: type,
    *,
    stored: StoredJobs = NO_JOBS,
    multirun: bool = False,
    config_dir: str | None = None,
    all_of: Mapping[str, str] | None = None,
    session: DataSession | None = None,
    ranks: Ranks | None = None,
) -> tuple[list[Job], list[ErrorDetail]]:
    """Composes every job that the overrides describe.

    Args:
        command: name of the primary configuration.
        typed: overrides as typed.
        settings: a dataclass whose fields are the command's own settings, with types and ranges.
        stored: jobs of an earlier command.
        multirun: whether commas separate the values of several jobs.
        config_dir: another folder of YAML files.
        all_of: groups of which every file is composed, each with its package.
        session: caches data that was read before.
        ranks: the processes that run the jobs together; None for a single one.

    Returns:
        The jobs whose components are valid, and all errors, each once. Unknown settings are left out of a job, so that
        the others can still be checked.
    """
    jobs, errors, session = list[Job](), list[ErrorDetail](), session or DataSession()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config_dir, typed = config_dir or stored.config_dir, [*stored.typed, *typed]
        reader = _Reader(command, settings, config_dir, all_of or {})
        chosen = [text for text in typed if text.partition("=")[2] in reader.options(text.partition("=")[0])]
        works = partial(_works, reader, settings, session, groups=chosen)
        parsed = reader.parse(typed, multirun, errors, works)
        space = space_of(parsed, works, chosen, config_dir, errors)
        single = [override for override in parsed if not override.is_sweep_override()]
        shared = [override for override in single if override.key_or_group.startswith(stored.shared)]
        replaced = tuple(f"{override.key_or_group}=" for override in shared)
        lists = [] if stored.is_alone else jobs_of(parsed) if space is None else space.corners()
        for job in stored.jobs:
            lists.append([*(text for text in job if not text.startswith(replaced)), *map(text_of, shared)])
        for job in lists:
            with collecting(errors):
                composed = _compose_job(reader, job, settings, session, errors)
                jobs += [composed] if space else _with_seeds(reader, composed, job, settings, errors)
    if space is not None and jobs:
        jobs[0] = jobs[0]._replace(space=space)
    return [job._replace(ranks=ranks or ALONE) for job in jobs], list(dict.fromkeys(errors))


def follows(error: ErrorDetail, errors: Sequence[ErrorDetail]) -> bool:
    """Whether a setting is only missing because it was misspelt, empty or could not be parsed."""
    others = [e for e in errors if e.message != error.message]
    misspelt = any(f"did you mean {error.where[:-1]}?" in e.message or e.where.startswith(error.where) for e in others)
    return error.where.endswith("=") and error.message.startswith(("is required", "is needed")) and misspelt


def _compose_job(
    reader: _Reader, overrides: Sequence[str], settings: type, session: DataSession, errors: list[ErrorDetail]
) -> Job:
    """Composes one job; `errors` receives those of settings that are left out of it.

    Raises:
        UsageError: the job cannot be composed, or its components are invalid.
    """
    try:
        cfg, choices, valid = reader.compose(overrides, errors)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError([ErrorDetail(" ".join(overrides), first_line(error))]) from error
    typed = [override.key_or_group for override in valid]
    fill_length(cfg, typed)
    try:
        own_errors = schema.settings_errors(cfg, settings) + fill_latent_shape(cfg, typed)
        config = resolved(cfg)
    except OmegaConfBaseException as error:
        where = next((text for text in map(text_of, valid) if "${" in text), "")
        raise UsageError([ErrorDetail(where, f"cannot be resolved: {first_line(error)}")]) from error
    builder = Builder(_allowed(config.get("allow")))
    make_importable(builder.allow)
    if not config.get("resume"):  # a resumed run has its own components
        invalid = {e.where.partition("=")[0] for e in own_errors}
        own_errors += schema.package_errors(cfg) or schema.component_errors(cfg, config, builder, invalid, choices)
        own_errors += schema.unread_errors(cfg, settings, typed)
    if own_errors:
        raise UsageError([with_text(error, valid) for error in own_errors])
    own, texts = schema.own_settings(config, settings), tuple(map(text_of, valid))
    return Job(own, config, tuple(map(as_typed, texts)), choices, builder, session, composed=(*texts, *reader.added))


def _with_seeds(
    reader: _Reader, job: Job, overrides: Sequence[str], settings: type, errors: list[ErrorDetail]
) -> list[Job]:
    """The jobs of `seeds=`, one for each seed."""
    if (count := getattr(job.settings, "seeds", 1)) == 1:
        return [job]
    others = [text for text in overrides if not text.startswith("seed=")]
    seeds = [[*others, f"seed={job.settings.seed + number}"] for number in range(count)]
    return [_compose_job(reader, each, settings, job.session, errors) for each in seeds]


def _works(reader: _Reader, settings: type, session: DataSession, text: str, groups: Sequence[str]) -> bool:
    """Whether a setting can be parsed and its value is accepted beside the defaults and the chosen `groups`."""
    errors, text = list[ErrorDetail](), with_brackets(text, reader.choice_lists)
    try:
        override = reader.parser.parse_override(text)
        with collecting(errors):
            _compose_job(reader, [*groups, text], settings, session, errors)
    except HydraException:
        return False
    return not override.is_sweep_override() and override.key_or_group not in {e.where.split("=")[0] for e in errors}


def _allowed(names: Any) -> list[str]:
    """The packages that `allow=` names."""
    return [str(name) for name in (names if isinstance(names, tuple) else [names]) if name is not None]


def resolved(cfg: DictConfig) -> Config:
    """Converts a composed configuration to a plain tree.

    Raises:
        OmegaConfBaseException: an interpolation cannot be resolved.
    """
    return Config(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]


def with_values(cfg: DictConfig, values: Sequence[Override]) -> DictConfig:
    """A copy of a composed configuration with other values. Composing again would take Hydra 0.1 s or more."""
    cfg = copy.deepcopy(cfg)
    for override in values:
        OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True, force_add=override.is_add())
    return cfg


class _Reader:
    """Hydra's view of the configuration folders.

    Args:
        command: name of the primary configuration.
        settings: see `compose_jobs`.
        config_dir: another folder of YAML files.
        all_of: groups of which every file is composed, each with its package. `vae eval` composes all of `metric` into
            `metrics`, those of `config_dir` included.
    """

    def __init__(self, command: str, settings: type, config_dir: str | None, all_of: Mapping[str, str]) -> None:
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
        self.choose, self.options = cache(self._choose), cache(self._options)  # jobs of a sweep share most of both

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

    def _choose(self, *groups: str) -> tuple[DictConfig, Mapping[str, str]]:
        cfg = compose(self.command, overrides=[*groups, *self.added, *self.search], return_hydra_config=True)
        with open_dict(cfg):
            return cfg, dict(cfg.pop("hydra").runtime.choices)

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
