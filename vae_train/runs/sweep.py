"""Trains the jobs of a sweep that are not done yet, in this process or in several."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from vae_train.data.session import DataSession
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.run import is_folder_name, new_folder
from vae_train.runs.saved import read_job
from vae_train.runs.search.history import read_history, summary
from vae_train.runs.search.plan import NewSearch, write_search
from vae_train.runs.statuses import ENDED
from vae_train.runs.sweep_file import SWEEP_FILE, SWEEPS, SweepJob, add_jobs, read_jobs
from vae_train.runs.sweep_table import report
from vae_train.runs.worker import DEFAULT_POLICY, Policy, job_trainer, work
from vae_train.util.errors import ErrorDetail, Stopped
from vae_train.util.files import FolderGuard
from vae_train.util.locks import is_locked
from vae_train.util.text import counted

log = logging.getLogger("vae_train")

Jobs = Mapping[SweepJob, tuple[Config, Builder]]
"""Jobs with their configurations, and what locates their classes. New jobs have no folder yet."""

Start = Callable[[Path], object]
"""Runs workers of the sweep in a folder until they have ended."""


def name_errors(name: str) -> list[ErrorDetail]:
    """Reports an invalid name of a sweep."""
    where = f"sweep={name}"
    if not is_folder_name(name):
        return [ErrorDetail(where, "is not a valid folder name")]
    if (SWEEPS / name).exists() and not (SWEEPS / name / SWEEP_FILE).exists():
        reason = f"{SWEEPS / name} already exists and is not a sweep that can go on; choose another name"
        return [ErrorDetail(where, reason)]
    return []


def done_keys(name: str) -> set[str]:
    """The keys of the jobs of a sweep that are done."""
    return {job.key for job in read_jobs(SWEEPS / name) if job.status(SWEEPS / name) in ENDED}


def create_sweep(name: str | None, jobs: Jobs, now: str) -> Path:
    """Creates the folder of a sweep, or adds jobs to one that exists; see `run_sweep` for the arguments."""
    folder = new_folder(SWEEPS / now) if name is None else SWEEPS / name
    folder.mkdir(parents=True, exist_ok=True)
    add_jobs(folder, {job: config for job, (config, _) in jobs.items()})
    return folder


def run_sweep(
    name: str | None,
    jobs: Jobs,
    now: str,
    session: DataSession,
    policy: Policy = DEFAULT_POLICY,
    start: Start | None = None,
) -> int:
    """Trains all jobs of a sweep that are neither done nor locked, and resumes those that were interrupted.

    Args:
        name: names the folder. A sweep that exists goes on, with the new ones among the jobs.
        jobs: all jobs of this command that are not done.
        now: names the folder without a name; a number is appended if it exists.
        session: caches data that was read before.
        policy: what is done about jobs that fail.
        start: runs other processes that train the jobs; None for this process alone.

    Returns:
        The number of jobs that are neither done nor trained by another command.

    Raises:
        FolderGoneError: the folder of the sweep was deleted or renamed.
        Stopped: a signal arrived; the states of all jobs are saved.
    """
    folder = create_sweep(name, jobs, now)
    _log_start(folder, read_jobs(folder), policy.retry)
    train = job_trainer(folder, partial(_config, folder, jobs), session)
    errors = _work(folder, partial(work, folder, train, policy), start)
    left = [job for job in read_jobs(folder) if job.folder in errors or job.status(folder) not in ENDED]
    elsewhere = [job for job in left if is_locked(job.files(folder).lock_file)]
    if elsewhere:
        verb = "is" if len(elsewhere) == 1 else "are"
        log.info("%s %s being trained by other commands", counted(len(elsewhere), "job"), verb)
    return len(left) - len(elsewhere)


def create_search(name: str | None, search: NewSearch, now: str) -> Path:
    """Creates the folder of a search, or changes the settings of one that exists; see `run_sweep` for the arguments."""
    folder = create_sweep(name, {}, now)
    write_search(folder, search)
    return folder


def run_search(folder: Path, work_on: Callable[[Path], dict[str, str]], start: Start | None = None) -> int:
    """Works on the trials of a search until it has as many as it was given.

    Args:
        folder: the folder of its sweep.
        work_on: works on the trials in a folder; returns the errors of the jobs that failed.
        start: runs other processes that work on them; None for this process alone.

    Returns:
        0 if a trial is complete, else 1.

    Raises:
        FolderGoneError, Stopped: see `run_sweep`.
    """
    log.info("vae train: a search in %s", folder)
    if (before := read_history(folder)) is not None:
        log.info("%s: %s", folder.name, summary(before)[0])
    _work(folder, partial(work_on, folder), start)
    history = read_history(folder)
    for line in [] if history is None else summary(history):
        log.info("%s", line)
    return 0 if history is not None and history.best else 1


def _work(folder: Path, alone: Callable[[], dict[str, str]], start: Start | None) -> dict[str, str]:
    """Works on a sweep, alone or in other processes, and reports; returns the errors of the jobs that failed here."""
    errors: dict[str, str] = {}
    with FolderGuard(folder, SWEEP_FILE) as guard:
        try:
            if start is None:
                errors = alone()
            else:
                start(folder)
        except Stopped as stopped:
            again = shlex.join(["vae", "train", "-m", f"sweep={folder.name}"])
            stopped.args = (f"{str(stopped).partition('. Resume with')[0]}. Go on with: {again}",)
            raise
        finally:
            if guard.is_in_place() and (jobs := read_jobs(folder)):
                report(folder, jobs, errors)
    return errors


def _config(sweep: Path, jobs: Jobs, job: SweepJob) -> tuple[Config, Builder]:
    """The configuration of a job, which another command may have added to the sweep."""
    own = {entry.key: config for entry, config in jobs.items()}
    if job.key in own:
        return own[job.key]
    builder = next(iter(jobs.values()))[1]
    return read_job(job.config_file(sweep), builder), builder


def _log_start(folder: Path, jobs: Sequence[SweepJob], retry: bool) -> None:
    """Logs how many jobs are done, and what happens to the others."""
    counts = Counter(job.status(folder) for job in jobs)
    if set(counts) == {"not started"}:
        log.info("vae train: %d jobs in %s", len(jobs), folder)
        return
    unfinished = [job for job in jobs if job.status(folder) in ("running", "stopped")]
    elsewhere, failed = sum(is_locked(job.files(folder).lock_file) for job in unfinished), counts["failed"]
    parts = [f"{counts['done']} of {len(jobs)} done"]
    parts += [f"{len(unfinished) - elsewhere} to resume"] if len(unfinished) > elsewhere else []
    parts += [f"{elsewhere} being trained"] if elsewhere else []
    parts += [f"{failed} failed, to resume"] if failed and retry else []
    parts += [f"{failed} failed (retry=true resumes them)"] if failed and not retry else []
    parts += [f"{counts['not started']} to go"] if counts["not started"] else []
    log.info("%s: %s", folder.name, ", ".join(parts))
