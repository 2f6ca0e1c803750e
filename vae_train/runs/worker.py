"""A worker takes the next job of a sweep that is neither done nor locked, until nothing is left."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from vae_train.data.session import DataSession
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.files import RunFiles
from vae_train.runs.run import write_json
from vae_train.runs.saved import open_run
from vae_train.runs.statuses import CLOSED, ENDED
from vae_train.runs.sweep_file import SWEEP_FILE, SweepJob, read_jobs
from vae_train.runs.sweep_results.estimate import log_estimate
from vae_train.runs.train import resume, train
from vae_train.training.state import ReportValidation
from vae_train.util.errors import FolderGoneError, LockLostError
from vae_train.util.files import FolderGuard, appending
from vae_train.util.locks import Lock, try_lock

log = logging.getLogger("vae_train")

PLACEMENT = ("device", "threads", "execution")
"""Settings that the command which resumes a job decides."""


class Take(NamedTuple):
    """A job that a worker has locked."""

    job: SweepJob
    number: int
    """Its place in the sweep; the first is 1."""
    of: int
    """Number of jobs in the sweep."""
    lock: Lock
    report: ReportValidation | None = None
    """Receives every validation, and may prune the run."""


Train = Callable[[Take], object]
"""Trains or resumes a job."""


class Policy(NamedTuple):
    """What is done about jobs that fail."""

    retry: bool = False
    """Also resume jobs that failed before."""
    stop_on_failure: bool = False
    """Take no further jobs after one that failed."""


DEFAULT_POLICY = Policy()


def work(sweep: Path, train: Train, policy: Policy = DEFAULT_POLICY) -> dict[str, str]:
    """Trains all jobs of a sweep that are neither done nor locked, in sequence.

    Jobs that are added meanwhile are trained, too. A job that fails keeps its log.

    Args:
        sweep: the folder of the sweep.
        train: trains or resumes a job.
        policy: what is done about jobs that fail.

    Returns:
        The errors of the jobs that failed, by the names of their folders.

    Raises:
        FolderGoneError: the folder of the sweep was deleted or renamed.
        Stopped: see `vae_train.runs.train.train`.
    """
    errors, finished = dict[str, str](), 0
    with FolderGuard(sweep, SWEEP_FILE) as guard, closing(_takes(sweep, guard, policy.retry)) as takes:
        for take in takes:
            log.info("[%d/%d] %s", take.number, take.of, " ".join(take.job.overrides))
            if (error := attempt(take, train, sweep, guard)) is not None:
                errors[take.job.folder] = error
                if policy.stop_on_failure:
                    log.info("stopping, since stop_on_failure=true")
                    break
                continue
            finished += 1
            log_estimate(sweep, finished)
    return errors


def attempt(take: Take, train: Train, sweep: Path, guard: FolderGuard) -> str | None:
    """Trains a job; returns its error if it fails, which is also recorded.

    Args:
        take: the job.
        train: trains or resumes it.
        sweep: the folder of the sweep.
        guard: notices that this folder is gone.

    Raises:
        FolderGoneError, Stopped: see `work`.
    """
    try:
        train(take)
    except Exception as error:
        guard.check()
        log.error("failed: %s", error)
        if not isinstance(error, FolderGoneError | LockLostError):
            _record_failure(take.job.files(sweep), error)
        return str(error)
    return None


def job_trainer(sweep: Path, config_of: Callable[[SweepJob], tuple[Config, Builder]], session: DataSession) -> Train:
    """How the jobs of a sweep are trained or resumed.

    Args:
        sweep: the folder of the sweep.
        config_of: the configuration of a job, with what locates its classes.
        session: caches data that was read before.
    """

    def train_or_resume(take: Take) -> None:
        files = take.job.files(sweep)
        config, builder = config_of(take.job)
        if files.config_file.exists():
            run = open_run(str(files.folder), f"sweep={sweep.name}", builder)
            run.lock = take.lock
            resume(run, {key: config[key] for key in PLACEMENT}, session, builder, report=take.report)
            return
        for path in (files.summary_file, files.log_file):  # how it failed before it was a run
            path.unlink(missing_ok=True)
        train(config, files.folder, session, builder, take.lock, report=take.report)

    return train_or_resume


def _takes(sweep: Path, guard: FolderGuard, retry: bool) -> Generator[Take, None, None]:
    """Yields each job once that is neither done nor locked, with its lock, which ends at the next one."""
    finished = ENDED if retry else CLOSED
    closed: set[str] = set()
    """Names of jobs that are finished, or that this worker has had."""
    while take := _next(sweep, guard, finished, closed):
        with take.lock:
            if take.job.status(sweep) not in finished:
                yield take


def _next(sweep: Path, guard: FolderGuard, finished: tuple[str, ...], closed: set[str]) -> Take | None:
    """Locks the next job; `closed` receives it and those that are finished."""
    guard.check()
    jobs = read_jobs(sweep)
    for number, job in enumerate(jobs, 1):
        if job.folder in closed:
            continue
        if job.status(sweep) in finished:
            closed.add(job.folder)
            continue
        if (lock := lock_job(job, sweep)) is not None:
            closed.add(job.folder)
            return Take(job, number, len(jobs), lock)
    return None


def lock_job(job: SweepJob, sweep: Path) -> Lock | None:
    """Creates the folder of a job and locks it; returns None if another worker has it."""
    files = job.files(sweep)
    files.folder.mkdir(exist_ok=True)
    return try_lock(files.lock_file)


def _record_failure(files: RunFiles, error: Exception) -> None:
    """Writes status and traceback of a job, which may have failed before it was a run."""
    files.folder.mkdir(exist_ok=True)
    if not files.summary_file.exists():
        write_json(files.summary_file, {"status": "failed", "error": str(error)})
    with appending(files.log_file) as file:
        file.write(traceback.format_exc())
