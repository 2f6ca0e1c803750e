"""`vae worker`: trains the jobs of a sweep that no other worker has."""

import logging
from dataclasses import dataclass

from vae_train.cli import searching
from vae_train.cli.commands import train as train_command
from vae_train.cli.jobs import Job
from vae_train.cli.overrides import compose_jobs
from vae_train.cli.parsing import quoted
from vae_train.runs.check import check as check_config
from vae_train.runs.config import Config, changed
from vae_train.runs.pool import end_with_parent
from vae_train.runs.saved import read_job, untrusted
from vae_train.runs.search.plan import read_search
from vae_train.runs.statuses import CLOSED, ENDED
from vae_train.runs.sweep_file import SWEEPS, SweepJob, read_jobs
from vae_train.runs.worker import Policy, job_trainer, work
from vae_train.training.signals import time_limit
from vae_train.util.errors import ErrorDetail, UsageError, collecting
from vae_train.util.ranges import PositiveFloat, Threads
from vae_train.util.runtime import device_errors

log = logging.getLogger("vae_train")


@dataclass
class Settings:
    """The top-level settings of conf/worker.yaml."""

    sweep: str
    retry: bool
    stop_on_failure: bool
    max_hours: PositiveFloat | None
    device: str | None
    threads: Threads | None
    parent: bool


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a sweep that does not exist, a missing device, and jobs that cannot be trained here."""
    where = f"sweep={settings.sweep}"
    jobs, is_search = read_jobs(SWEEPS / settings.sweep), read_search(SWEEPS / settings.sweep) is not None
    if not jobs and not is_search:
        return [ErrorDetail(where, f"no such sweep below {SWEEPS}; create it with vae train -m")]
    errors = [] if settings.device is None else device_errors(settings.device)
    if errors or settings.parent:  # which has checked the jobs
        return errors
    if is_search and (without := [name for name in ("retry", "stop_on_failure") if getattr(settings, name)]):
        return [ErrorDetail(f"{name}=true", searching.NO_RETRY) for name in without]
    if is_search:
        with collecting(errors, where):
            first = _first_of_search(settings, job)
            errors += train_command.check(first.settings, first)
        return errors
    closed = ENDED if settings.retry else CLOSED
    left = [job for job in jobs if job.status(SWEEPS / settings.sweep) not in closed]
    for each in left:
        with collecting(errors, where):
            errors += check_config(_config(settings, each, job), job.session, job.builder)
    return list(dict.fromkeys(errors))


def run(settings: Settings, job: Job) -> None:
    """Trains jobs until nothing is left."""
    if settings.parent:
        end_with_parent()
    sweep = SWEEPS / settings.sweep
    with time_limit(settings.max_hours):
        if read_search(sweep) is not None:
            failed = train_command.trial_jobs(_first_of_search(settings, job), is_trusted=settings.parent).work(sweep)
        else:
            train = job_trainer(sweep, lambda each: (_config(settings, each, job), job.builder), job.session)
            failed = work(sweep, train, Policy(settings.retry, settings.stop_on_failure))
    jobs = read_jobs(sweep)
    done = sum(each.status(sweep) in ENDED for each in jobs)
    log.info(
        "%s: nothing left for this worker; %d of %d done, %d failed here", sweep.name, done, len(jobs), len(failed)
    )


def _first_of_search(settings: Settings, job: Job) -> Job:
    """The first of the combinations of a search that are checked, on the device of this worker."""
    typed = [f"sweep={quoted(settings.sweep)}", f"allow=[{','.join(job.builder.allow)}]"]
    typed += [f"device={settings.device}"] if settings.device is not None else []
    typed += [f"threads={settings.threads}"] if settings.threads is not None else []
    stored = searching.continued(settings.sweep, typed, train_command.SHARED)
    assert stored is not None
    jobs, errors = compose_jobs(
        "train", typed, train_command.Settings, stored=stored, multirun=True, session=job.session
    )
    if errors:
        raise UsageError(errors)
    return jobs[0] if settings.parent else jobs[0]._replace(config=untrusted(jobs[0].config))


def _config(settings: Settings, each: SweepJob, job: Job) -> Config:
    """The configuration of a job, on the device of this worker."""
    config = read_job(each.config_file(SWEEPS / settings.sweep), job.builder, trusted=settings.parent)
    changes = {"device": settings.device, "threads": settings.threads}
    return changed(config, {key: value for key, value in changes.items() if value is not None})
