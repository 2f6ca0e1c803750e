"""`vae train`: trains a model and writes a run."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from vae_train.cli import searching
from vae_train.cli.jobs import Job, StoredJobs
from vae_train.cli.schema import KNOB, inactive_errors
from vae_train.cli.trials import TrialJobs
from vae_train.cli.workers import launcher_of, local_workers, policy_of, submit
from vae_train.model.base import Part
from vae_train.runs import sweep
from vae_train.runs.build import Builder
from vae_train.runs.check import check as check_config
from vae_train.runs.config import Config
from vae_train.runs.plan import show_plan
from vae_train.runs.resuming import resume_errors
from vae_train.runs.run import Run, folder_errors
from vae_train.runs.search.plan import Prune
from vae_train.runs.search.storage import VARIABLE, unconfirmed
from vae_train.runs.statuses import CLOSED, ENDED
from vae_train.runs.sweep_file import NEUTRAL, SWEEPS, SweepJob, read_jobs
from vae_train.runs.train import resume, train
from vae_train.training.checkpoint import Keep
from vae_train.training.execution import Mode
from vae_train.training.signals import time_limit
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from vae_train.util.runtime import Precision

log = logging.getLogger("vae_train")

SWEEP_SETTINGS = ("retry", "stop_on_failure", "workers", "per_gpu", "launch")
"""Settings of this call that only apply to sweeps."""

SEARCH_SETTINGS = ("search", "trials", "prune", "seeds")
"""Settings of searches and of repeated jobs, which are not part of a run."""

CALL_SETTINGS = ("resume", "strict", "allow", "distributed", "max_hours")
"""Settings of this call that also apply to runs which are resumed."""

INVOCATION = ("out", "sweep", "plan", *CALL_SETTINGS, *SWEEP_SETTINGS, *SEARCH_SETTINGS)
"""Settings of this call of the command, which are not part of a run."""

SHARED = ("sweep", "max_hours", *SWEEP_SETTINGS, *NEUTRAL)
"""Beginnings of the settings that may be given to a sweep that goes on."""


@dataclass
class Settings:
    """The top-level settings of conf/train.yaml; fields marked KNOB act through the components that read them."""

    latent_dim: PositiveInt = field(metadata=KNOB)
    latent_shape: list[PositiveInt] | None = field(metadata=KNOB)
    beta: NonNegativeFloat = field(metadata=KNOB)
    lr: PositiveFloat = field(metadata=KNOB)
    batch_size: PositiveInt | None = field(metadata=KNOB)
    epochs: PositiveInt | None = field(metadata=KNOB)
    steps: PositiveInt | None = field(metadata=KNOB)
    seed: Seed
    device: str
    precision: Precision = field(metadata=KNOB)
    execution: Mode = field(metadata=KNOB)
    name: str | None
    out: str | None
    sweep: str | None
    retry: bool
    stop_on_failure: bool
    max_hours: PositiveFloat | None
    workers: PositiveInt | None
    per_gpu: PositiveInt | None
    seeds: PositiveInt
    trials: PositiveInt
    prune: Prune
    resume: str | None
    init_from: str | None
    freeze: Part | None
    keep: Keep
    strict: bool
    plan: bool


def mode_errors(overrides: Sequence[str], multirun: bool) -> list[ErrorDetail]:
    """Reports settings that only work with -m, or only without."""
    typed = {override.lstrip("+").partition("=")[0]: override for override in overrides}
    if not multirun:
        message = "only applies to multirun; add -m"
        errors = [ErrorDetail(typed[key], message) for key in ("sweep", *SWEEP_SETTINGS) if key in typed]
        return errors + searching.mode_errors(typed, multirun, SHARED)
    errors = [
        ErrorDetail(typed[key], f"does not work with -m{hint}")
        for key, hint in (("out", "; name the folder with sweep="), ("resume", ""), ("plan", ""))
        if key in typed
    ]
    name = typed.get("sweep", "").partition("=")[2]
    errors += sweep.name_errors(name) if name else []  # an empty name is an error of every path
    return errors or searching.mode_errors(typed, multirun, SHARED)


def stored_jobs(typed: Sequence[str]) -> StoredJobs:
    """The jobs of an earlier sweep that are not done, if the settings name one.

    Raises:
        UsageError: only settings that change no number were typed, and there is no such sweep.
    """
    values = {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in typed)}
    name, shared = values.get("sweep"), SHARED
    if not name:
        return StoredJobs(shared=shared)
    if (stored := searching.continued(name, typed, shared)) is not None:
        return stored
    jobs, is_alone = read_jobs(SWEEPS / name), all(key.startswith(shared) for key in values)
    if is_alone and not jobs:
        message = "no such sweep; a new one needs settings, such as beta=1,2,4"
        raise UsageError([ErrorDetail(f"sweep={name}", message)])
    finished = ENDED if values.get("retry", "").lower() == "true" else CLOSED
    wanted = [job for job in jobs if job.status(SWEEPS / name) not in finished]
    if is_alone:
        wanted = wanted or jobs[:1]  # without a job there are no settings
    return StoredJobs([job.composed for job in wanted], shared, is_alone)


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that their sweep has not finished."""
    name = jobs[0].settings.sweep if jobs and jobs[0].space is None else None
    done = sweep.done_keys(name) if name else set()
    return [job for job in jobs if run_config(job).digest(NEUTRAL) not in done] if done else list(jobs)


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports invalid combinations, a missing device, missing files and an existing folder."""
    if settings.resume:
        run = job.open(settings.resume, "resume")
        return resume_errors(run, _changes(job), job.session, job.builder, job.ranks)
    config = run_config(job)
    errors = folder_errors(settings.out, config["name"]) + inactive_errors(job.overrides, config)
    errors += searching.search_errors(job) if job.space is not None else []
    if settings.epochs is not None and settings.steps is not None:
        message = f"and epochs={settings.epochs} are mutually exclusive; leave one out"
        errors.append(ErrorDetail(f"steps={settings.steps}", message))
    if launcher := launcher_of(job):
        errors += launcher.errors()
    found = check_config(config, job.session, job.builder, read=not settings.plan, ranks=job.ranks)
    return errors + [_with_choices(error, job.choices) for error in found]


def _with_choices(error: ErrorDetail, choices: Mapping[str, str]) -> ErrorDetail:
    """Names components as they were chosen; several choices may share a class, by which the check names them."""
    where, (reason, use, instead) = error.where, error.message.partition("; use ")
    for group, choice in choices.items():
        if where == group and choice != "none":  # none has settings, too
            where = f"{group}={choice}"
        where, reason = (re.sub(rf"(?<![\w./]){group}=\w+", f"{group}={choice}", text) for text in (where, reason))
    return error._replace(where=where, message=reason + use + instead)


def run(settings: Settings, job: Job) -> None:
    """Trains, resumes a run, or prints a plan."""
    if settings.plan:
        show_plan(run_config(job), job.session, job.builder)
        return
    with time_limit(settings.max_hours):
        if settings.resume:
            resume(job.open(settings.resume, "resume"), _changes(job), job.session, job.builder, job.ranks)
        else:
            train_job(job, Path(settings.out) if settings.out else None)


def train_job(job: Job, folder: Path | None) -> Run:
    """Trains a job in a new folder; None for one under outputs/."""
    return train(run_config(job), folder, job.session, job.builder, ranks=job.ranks)


def run_sweep(jobs: Sequence[Job]) -> int:
    """Trains all jobs in one folder, or goes on with those that are not done; returns the number that are not."""
    if jobs[0].space is not None:
        return run_search(jobs[0])
    settings, entries = jobs[0].settings, dict[str, SweepJob]()
    configs, same = dict[SweepJob, tuple[Config, Builder]](), set[str]()
    for job in jobs:
        entry, config = _entry(job)
        first = entries.setdefault(entry.key, entry)
        configs.setdefault(first, (config, job.builder))
        same |= {key for key, value in entry.settings.items() if first.settings.get(key, value) != value}
    if same:
        log.info("jobs that only differ in %s are trained once, since that changes no number", ", ".join(sorted(same)))
    if launcher := launcher_of(jobs[0]):
        submit(launcher, jobs[0], sweep.create_sweep(settings.sweep, configs, _now()))
        return 0
    with time_limit(settings.max_hours):
        return sweep.run_sweep(
            settings.sweep, configs, _now(), jobs[0].session, policy_of(settings), local_workers(jobs[0])
        )


def run_search(first: Job) -> int:
    """Works on the trials of a search in one folder; returns 0 if one of them is complete, or if they are submitted.

    Args:
        first: the first of the combinations that were checked.
    """
    settings, url = first.settings, first.config["search"]["storage"]
    if url is not None and unconfirmed(url):
        os.environ[VARIABLE] = url  # for the workers, since a URL that only the sweep names is not trusted
    folder = sweep.create_search(settings.sweep, searching.stored_settings(first), _now())
    if launcher := launcher_of(first):
        submit(launcher, first, folder)
        return 0
    workers = local_workers(first, settings.trials * settings.seeds)
    with time_limit(settings.max_hours):
        return sweep.run_search(folder, trial_jobs(first).work, workers)


def trial_jobs(first: Job, is_trusted: bool = True) -> TrialJobs:
    """What composes and evaluates the jobs of a search, see `TrialJobs`."""
    return TrialJobs(first, lambda job: check(job.settings, job), _entry, INVOCATION, is_trusted)


def _now() -> str:
    """The name of a sweep without a name."""
    return f"{datetime.now():%Y-%m-%d-%H-%M-%S}"


def _entry(job: Job) -> tuple[SweepJob, Config]:
    """The entry of a job in a sweep, without a folder, and its configuration."""
    config = run_config(job)
    return SweepJob(config.digest(NEUTRAL), "", _of_the_job(job.overrides), _of_the_job(job.composed)), config


def _of_the_job(overrides: Sequence[str]) -> tuple[str, ...]:
    """Overrides without those of one call of the command."""
    return tuple(text for text in overrides if re.split("[.=]", text)[0] not in (*SWEEP_SETTINGS, "seeds", "max_hours"))


def run_config(job: Job) -> Config:
    """The configuration of the run; its default name consists of the data and the model."""
    name = job.settings.name or f"{job.choices['data']}-{job.choices['model']}"
    return job.config.without(INVOCATION).with_values({"name": name})


def _changes(job: Job) -> dict[str, object]:
    """The settings typed besides resume=: values by dotted path."""
    keys = [override.lstrip("+").partition("=")[0] for override in job.overrides]
    return {key: job.choices.get(key, job.config.at(key)) for key in keys if key not in CALL_SETTINGS}
