"""Estimates the time and disk that a sweep needs, from the jobs that are done."""

from __future__ import annotations

import logging
import os
import shutil
import statistics
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from vae_train.runs.run import read_json
from vae_train.runs.statuses import CLOSED
from vae_train.runs.sweep_file import SweepJob, read_jobs
from vae_train.runs.sweep_results.rows import typed_point
from vae_train.util.numbers import finite
from vae_train.util.text import duration, size

ESTIMATED_AFTER = (1, 3, 10)
"""Numbers of jobs that a command has finished after which it logs an estimate."""

OVERDUE = 3.0
"""Multiple of its expected duration after which a running job counts as killed."""

log = logging.getLogger("vae_train")


class SweepEstimate(NamedTuple):
    """What a sweep needs until its end."""

    done: int
    jobs: int
    seconds_left: float
    num_bytes: float
    """Of all jobs at the end."""
    missing_bytes: float
    """Of the jobs that are not done."""
    free_bytes: int

    @property
    def line(self) -> str:
        """The estimate as a message."""
        disk = f"all {self.jobs} jobs need about {size(self.num_bytes)} of disk"
        free = f"{size(self.free_bytes)} free"
        if self.missing_bytes > self.free_bytes:
            free = f"only {free}; keep=best or keep=none removes checkpoints"
        return f"{self.done} of {self.jobs} done · about {duration(self.seconds_left)} left · {disk} ({free})"


def log_estimate(sweep: Path, finished: int) -> None:
    """Logs an estimate after the first jobs that a command has finished.

    Args:
        sweep: the folder of the sweep.
        finished: the number of jobs that this command has finished.
    """
    if finished in ESTIMATED_AFTER and (expected := estimate(sweep, read_jobs(sweep))) is not None:
        log.info("%s: %s", sweep.name, expected.line)


def estimate(sweep: Path, jobs: Sequence[SweepJob], workers: int = 1) -> SweepEstimate | None:
    """Estimates time and disk from the jobs that are done; None without one, or if no job is left.

    A job takes as long as those that only differ in the seed, or as the mean of all others.

    Args:
        sweep: the folder of the sweep.
        jobs: its jobs.
        workers: the number of jobs that are trained at the same time.
    """
    statuses = {job: job.status(sweep) for job in jobs}
    done = [job for job, status in statuses.items() if status == "done"]
    left = [job for job, status in statuses.items() if status not in CLOSED]
    seconds: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for job in done:
        if (took := finite(read_json(job.files(sweep).summary_file).get("seconds"))) is not None:
            seconds.setdefault(typed_point(job), []).append(took)
    if not seconds or not left:
        return None
    usual = statistics.fmean(took for each in seconds.values() for took in each)
    times = [statistics.fmean(seconds.get(typed_point(job), [usual])) for job in left]
    times = [_remaining(took, job, sweep, statuses[job]) for job, took in zip(left, times, strict=True)]
    per_job = statistics.fmean(_bytes_below(job.files(sweep).folder) for job in done)
    return SweepEstimate(
        len(done),
        len(jobs),
        max(sum(times) / workers, max(times)),
        per_job * len(jobs),
        per_job * len(left),
        shutil.disk_usage(sweep).free,
    )


def _remaining(took: float, job: SweepJob, sweep: Path, status: str) -> float:
    """Seconds until the end of a job that takes `took` seconds as a whole."""
    started = read_json(job.files(sweep).environment_file).get("started")
    if status != "running" or started is None:
        return took
    try:
        elapsed = (datetime.now().astimezone() - datetime.fromisoformat(str(started))).total_seconds()
    except (ValueError, TypeError):  # the file is not trusted
        return took
    # A job that has "run" for much longer was killed.
    return max(took - elapsed, 0.0) if 0 <= elapsed < OVERDUE * took else took


def _bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed in the meantime
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
