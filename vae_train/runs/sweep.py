"""Trains the jobs of a sweep that are not done yet, in one folder."""

from __future__ import annotations

import logging
import shlex
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from vae_train.runs.files import LOCK_FILE, RunFiles
from vae_train.runs.run import is_folder_name, new_folder, write_json
from vae_train.runs.sweep_file import SWEEP_FILE, SWEEPS, SweepJob, read_jobs, with_jobs, write_jobs
from vae_train.runs.sweep_table import report
from vae_train.util.errors import ErrorDetail, FolderGoneError, Stopped
from vae_train.util.files import FolderGuard, appending, locked

log = logging.getLogger("vae_train")

Train = Callable[[Path, bool], object]
"""(folder, whether to resume the run in it) -> trains a job."""


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
    return {job.key for job in read_jobs(SWEEPS / name) if job.status(SWEEPS / name) == "done"}


def run_sweep(name: str | None, jobs: Mapping[SweepJob, Train], now: str, retry: bool = False) -> int:
    """Trains all jobs of a sweep that are not done, in sequence, and resumes those that were interrupted.

    A job that fails keeps its log and does not stop the others.

    Args:
        name: names the folder. A sweep that exists goes on, with the new ones among the jobs.
        jobs: all jobs of the sweep that are not done, and how to train them. New ones have no folder yet.
        now: names the folder without a name; a number is appended if it exists.
        retry: also resume jobs that failed.

    Returns:
        The number of jobs that are not done.

    Raises:
        UsageError: another process is working on this sweep.
        FolderGoneError: the folder of the sweep was deleted or renamed.
        Stopped: see `vae_train.runs.train.train`.
    """
    folder = new_folder(SWEEPS / now) if name is None else SWEEPS / name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK_FILE):
        known = with_jobs(read_jobs(folder), list(jobs))
        write_jobs(folder, known)
        train = {job.key: function for job, function in jobs.items()}
        before = {job.folder: job.status(folder) for job in known}
        _log_start(folder, before, retry)
        errors: dict[str, str] = {}
        with FolderGuard(folder, SWEEP_FILE) as guard:
            try:
                for number, job in enumerate(known):
                    status = before[job.folder]
                    if status == "done" or (status == "failed" and not retry) or job.key not in train:
                        continue  # a job without a function was added by another process after the check
                    guard.check()
                    log.info("[%d/%d] %s", number + 1, len(known), " ".join(job.overrides))
                    _train(train[job.key], job.files(folder), job.folder, errors, guard)
            except Stopped as stopped:
                again = shlex.join(["vae", "train", "-m", f"sweep={folder.name}"])
                stopped.args = (f"{str(stopped).partition('. Resume with')[0]}. Go on with: {again}",)
                raise
            finally:
                if guard.is_in_place():
                    report(folder, known, errors)
        return sum(job.folder in errors or job.status(folder) != "done" for job in known)


def _log_start(folder: Path, statuses: Mapping[str, str], retry: bool) -> None:
    """Logs how many jobs are done, and what happens to the others."""
    counts = Counter(statuses.values())
    if set(counts) == {"not started"}:
        log.info("vae train: %d jobs in %s", len(statuses), folder)
        return
    interrupted, failed = counts["running"] + counts["stopped"], counts["failed"]
    parts = [f"{counts['done']} of {len(statuses)} done"]
    parts += [f"{interrupted} to resume"] if interrupted else []
    parts += [f"{failed} failed, to resume"] if failed and retry else []
    parts += [f"{failed} failed (retry=true resumes them)"] if failed and not retry else []
    parts += [f"{counts['not started']} to go"] if counts["not started"] else []
    log.info("%s: %s", folder.name, ", ".join(parts))


def _train(train: Train, files: RunFiles, name: str, errors: dict[str, str], guard: FolderGuard) -> None:
    """Trains or resumes a job; `errors` receives its error."""
    is_run = files.config_file.exists()
    if not is_run:
        for path in (files.summary_file, files.log_file):  # how it failed before it was a run
            path.unlink(missing_ok=True)
    try:
        train(files.folder, is_run)
    except Exception as error:
        guard.check()
        log.error("failed: %s", error)
        errors[name] = str(error)
        if not isinstance(error, FolderGoneError):
            _record_failure(files, error)


def _record_failure(files: RunFiles, error: Exception) -> None:
    """Writes status and traceback of a job, which may have failed before its folder was created."""
    files.folder.mkdir(exist_ok=True)
    if not files.summary_file.exists():
        write_json(files.summary_file, {"status": "failed", "error": str(error)})
    with appending(files.log_file) as file:
        file.write(traceback.format_exc())
