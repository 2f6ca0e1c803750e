"""Turns typed overrides into composed and resolved configurations, or lists every error in them.

Hydra stops at the first error and accepts `+foo=1` silently. Here every override is checked separately, the valid ones
are composed, and the result is compared with signatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_train.cli import schema
from vae_train.cli.hydra_compat import conf_dir
from vae_train.cli.jobs import NO_JOBS, Job, StoredJobs
from vae_train.cli.linked import fill_latent_shape, fill_length
from vae_train.cli.parsing import as_typed, jobs_of, text_of, with_brackets, with_text
from vae_train.cli.reader import Composed, Reader
from vae_train.cli.space import space_of
from vae_train.data.session import DataSession
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.packages import make_importable
from vae_train.training.ranks import ALONE, Ranks
from vae_train.util.errors import ErrorDetail, UsageError, collecting
from vae_train.util.text import first_line


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
    composed: Composed | None = None,
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
        composed: caches what Hydra has composed, for further calls with the same YAML files.
        ranks: the processes that run the jobs together; None for a single one.

    Returns:
        The jobs whose components are valid, and all errors, each once. Unknown settings are left out of a job, so that
        the others can still be checked.
    """
    jobs, errors, session = list[Job](), list[ErrorDetail](), session or DataSession()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config_dir, typed = config_dir or stored.config_dir, [*stored.typed, *typed]
        reader = Reader(command, settings, config_dir, all_of or {}, composed)
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
                first = _compose_job(reader, job, settings, session, errors)
                jobs += [first] if space else _with_seeds(reader, first, job, settings, errors)
    if space is not None and jobs:
        jobs[0] = jobs[0]._replace(space=space)
    return [job._replace(ranks=ranks or ALONE) for job in jobs], list(dict.fromkeys(errors))


def follows(error: ErrorDetail, errors: Sequence[ErrorDetail]) -> bool:
    """Whether a setting is only missing because it was misspelt, empty or could not be parsed."""
    others = [e for e in errors if e.message != error.message]
    misspelt = any(f"did you mean {error.where[:-1]}?" in e.message or e.where.startswith(error.where) for e in others)
    return error.where.endswith("=") and error.message.startswith(("is required", "is needed")) and misspelt


def _compose_job(
    reader: Reader, overrides: Sequence[str], settings: type, session: DataSession, errors: list[ErrorDetail]
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
    reader: Reader, job: Job, overrides: Sequence[str], settings: type, errors: list[ErrorDetail]
) -> list[Job]:
    """The jobs of `seeds=`, one for each seed."""
    if (count := getattr(job.settings, "seeds", 1)) == 1:
        return [job]
    others = [text for text in overrides if not text.startswith("seed=")]
    seeds = [[*others, f"seed={job.settings.seed + number}"] for number in range(count)]
    return [_compose_job(reader, each, settings, job.session, errors) for each in seeds]


def _works(reader: Reader, settings: type, session: DataSession, text: str, groups: Sequence[str]) -> bool:
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
