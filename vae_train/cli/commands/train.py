"""`vae train`: trains a model and writes a run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from vae_train.cli.overrides import Job
from vae_train.cli.schema import KNOB, inactive_errors
from vae_train.model.base import Part
from vae_train.runs import sweep
from vae_train.runs.check import check as check_config
from vae_train.runs.config import Config
from vae_train.runs.plan import show_plan
from vae_train.runs.run import Run, folder_errors
from vae_train.runs.train import resume, resume_errors, train
from vae_train.training.execution import Mode
from vae_train.util.errors import ErrorDetail
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from vae_train.util.runtime import Precision

INVOCATION = ("out", "sweep", "resume", "strict", "plan", "allow")
"""Settings of this call of the command, which are not part of a run."""


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
    resume: str | None
    init_from: str | None
    freeze: Part | None
    strict: bool
    plan: bool


def mode_errors(overrides: Sequence[str], multirun: bool) -> list[ErrorDetail]:
    """Reports settings that only work with -m, or only without."""
    typed = {override.lstrip("+").partition("=")[0]: override for override in overrides}
    if not multirun:
        return [ErrorDetail(typed["sweep"], "only applies to multirun; add -m")] if "sweep" in typed else []
    errors = [
        ErrorDetail(typed[key], f"does not work with -m{hint}")
        for key, hint in (("out", "; name the folder with sweep="), ("resume", ""), ("plan", ""))
        if key in typed
    ]
    name = typed.get("sweep", "").partition("=")[2]
    return errors + (sweep.name_errors(name) if name else [])  # an empty name is an error of every path


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports invalid combinations, a missing device, missing files and an existing folder."""
    if settings.resume:
        run = job.open(settings.resume, "resume")
        return resume_errors(run, _changes(job), job.session, job.builder)
    config = run_config(job)
    errors = folder_errors(settings.out, config["name"]) + inactive_errors(job.overrides, config)
    if settings.epochs is not None and settings.steps is not None:
        message = f"and epochs={settings.epochs} are mutually exclusive; leave one out"
        errors.append(ErrorDetail(f"steps={settings.steps}", message))
    found = check_config(config, job.session, job.builder, read=not settings.plan)
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
    elif settings.resume:
        resume(job.open(settings.resume, "resume"), _changes(job), job.session, job.builder)
    else:
        train_job(job, Path(settings.out) if settings.out else None)


def train_job(job: Job, folder: Path | None) -> Run:
    """Trains a job in a new folder; None for one under outputs/."""
    return train(run_config(job), folder, job.session, job.builder)


def run_sweep(jobs: Sequence[Job]) -> int:
    """Trains all jobs in one folder; returns the number that did not finish."""
    name = jobs[0].settings.sweep or f"{datetime.now():%Y-%m-%d-%H-%M-%S}"
    overrides = [job.overrides for job in jobs]
    return sweep.run_sweep(name, overrides, lambda number, folder: train_job(jobs[number], folder))


def run_config(job: Job) -> Config:
    """The configuration of the run; its default name consists of the data and the model."""
    name = job.settings.name or f"{job.choices['data']}-{job.choices['model']}"
    return job.config.without(INVOCATION).with_values({"name": name})


def _changes(job: Job) -> dict[str, object]:
    """The settings typed besides resume=: values by dotted path."""
    keys = [override.lstrip("+").partition("=")[0] for override in job.overrides]
    return {key: job.choices.get(key, job.config.at(key)) for key in keys if key not in ("resume", "strict", "allow")}
