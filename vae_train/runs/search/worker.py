"""Trains the jobs of a search in the folder of its sweep. Imports Optuna, so it is imported late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vae_train.data.session import DataSession
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.search.loop import Tools, TrialLoop
from vae_train.runs.search.plan import Plan
from vae_train.runs.search.study import SearchStudy
from vae_train.runs.statuses import CLOSED
from vae_train.runs.sweep_file import SWEEP_FILE, SweepJob, add_jobs
from vae_train.runs.worker import Take, attempt, job_trainer, lock_job
from vae_train.training.state import ReportValidation
from vae_train.util.errors import RunError
from vae_train.util.files import FolderGuard

Compose = Callable[[Mapping[str, str], int], tuple[SweepJob, Config, Builder]]
"""(settings of a trial, which of the seeds) -> a job without a folder, its configuration, what locates its classes."""

Evaluate = Callable[[Path, Sequence[str]], Mapping[str, float]]
"""See `vae_train.runs.search.loop.Tools`."""


def work_on_trials(
    sweep: Path, plan: Plan, seeds: int, compose: Compose, evaluate: Evaluate, session: DataSession
) -> dict[str, str]:
    """Works on the trials of a search until none is left.

    Args:
        sweep: the folder of the sweep.
        plan: what its study consists of.
        seeds: number of runs of a trial.
        compose: makes the jobs of its trials.
        evaluate: computes metrics of a run.
        session: caches data that was read before.

    Returns:
        The errors of the jobs that failed, by the names of their folders.

    Raises:
        FolderGoneError, Stopped: see `vae_train.runs.worker.work`.
        StorageError: the study cannot be reached.
    """
    errors, configs = dict[str, str](), dict[str, tuple[Config, Builder]]()
    varied = [*(axis.key.lstrip("+") for axis in plan.axes), *(["seed"] if seeds > 1 else [])]
    trainer = job_trainer(sweep, lambda job: configs[job.key], session)
    with FolderGuard(sweep, SWEEP_FILE) as guard:

        def add(values: Mapping[str, str], number: int) -> SweepJob:
            guard.check()
            new, config, builder = compose(values, number)
            configs[new.key] = config, builder
            return next(job for job in add_jobs(sweep, {new: config}, varied) if job.key == new.key)

        def train(job: SweepJob, report: ReportValidation | None) -> bool:
            if (lock := lock_job(job, sweep)) is None:
                return False
            with lock:
                if job.status(sweep) in CLOSED:
                    return True
                error = attempt(Take(job, 1, 1, lock, report), trainer, sweep, guard)
                if error is not None and lock.is_held():
                    errors[job.folder] = error
                    raise RunError(error)
            return error is None

        TrialLoop(sweep, SearchStudy(sweep, plan), plan.metrics, seeds, Tools(add, train, evaluate)).run()
    return errors
