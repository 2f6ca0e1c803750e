"""The progress of a sweep whose jobs other processes train: a live line on a terminal, lines elsewhere."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm
from typing_extensions import Self

from vae_train.runs.run import read_json
from vae_train.runs.statuses import CLOSED
from vae_train.runs.sweep_file import SweepJob, read_jobs, swept
from vae_train.util.locks import is_locked
from vae_train.util.text import duration, short_number

log = logging.getLogger("vae_train")

UPDATE_S = 1.0
"""Seconds between two looks at the runs."""

LINE_S = 30.0
"""Shortest time between two lines about runs, where there is no terminal."""


@dataclass
class Progress:
    """How far a run is, from the rows that it has written."""

    path: Path
    epoch: int = 0
    value: float | None = None
    """Its best validation ELBO."""
    since: float = field(default_factory=time.monotonic)
    _file: int = 0
    _read: int = 0

    def update(self) -> None:
        """Reads the rows that are new."""
        with suppress(OSError, ValueError), self.path.open("rb") as file:
            if (number := os.fstat(file.fileno()).st_ino) != self._file:  # a run that was resumed has a new file
                self._file, self._read = number, 0
            file.seek(self._read)
            for line in file.read().splitlines(keepends=True):
                if line.endswith(b"\n"):  # else it is being written
                    self._add(json.loads(line))
                    self._read += len(line)

    def _add(self, row: dict[str, Any]) -> None:
        self.epoch = row["epoch"]
        if row["split"] == "valid" and "elbo" in row:
            self.value = row["elbo"] if self.value is None else max(self.value, row["elbo"])


class SweepDisplay:
    """Shows how many jobs of a sweep are done, which are being trained, and the time left.

    Args:
        sweep: the folder of the sweep.
        workers: number of workers, by which the time left is estimated.
        expected: number of jobs if more will be added.
        file: output of the live line; None for standard error.
        clock: the time in seconds.
    """

    def __init__(
        self,
        sweep: Path,
        workers: int,
        expected: int = 0,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.expected = expected
        self.sweep, self.workers, self.file, self.clock = sweep, workers, file or sys.stderr, clock
        self._looked = self._logged = -LINE_S
        self._ended = {job.folder for job in read_jobs(sweep) if job.status(sweep) in CLOSED}
        self.failures = 0
        """Number of jobs that have failed since the start."""
        self._running: dict[str, Progress] = {}
        self._seconds = list[float]()
        """Durations of the jobs that ended."""
        self._line = tqdm(
            total=0, file=self.file, disable=not self.file.isatty(), bar_format="{desc}", dynamic_ncols=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def update(self) -> None:
        """Looks at the runs, at most once a second, and shows what has changed."""
        if self.clock() - self._looked < UPDATE_S:
            return
        self._looked = self.clock()
        jobs = read_jobs(self.sweep)
        names = _names(jobs)
        for job in jobs:
            if job.folder not in self._ended and job.status(self.sweep) in CLOSED:
                self._end(job, names[job.folder])
        running = [job for job in jobs if job.folder not in self._ended and self._is_running(job)]
        self._running = {job.folder: self._progress(job) for job in running}
        text = self._text(
            max(len(jobs), self.expected),
            [self._describe(names[job.folder], self._running[job.folder]) for job in running],
        )
        self._line.set_description_str(text)
        if self._line.disable and running and self.clock() - self._logged >= LINE_S:
            self._logged = self.clock()
            log.info("%s", text)

    def _is_running(self, job: SweepJob) -> bool:
        return is_locked(job.files(self.sweep).lock_file)

    def _progress(self, job: SweepJob) -> Progress:
        progress = self._running.get(job.folder) or Progress(job.files(self.sweep).metrics_file)
        progress.update()
        return progress

    def _end(self, job: SweepJob, name: str) -> None:
        """Logs how a job ended."""
        self._ended.add(job.folder)
        summary = read_json(job.files(self.sweep).summary_file)
        if summary["status"] == "failed":
            self.failures += 1
            log.error("failed: %s: %s", name, summary.get("error", ""))
            return
        self._seconds.append(summary.get("seconds", 0.0))
        best = f" · best {short_number(summary['best_elbo'])}" if "best_elbo" in summary else ""
        log.info("%s: %s%s · %s", summary["status"], name, best, duration(self._seconds[-1]))

    def _describe(self, name: str, progress: Progress) -> str:
        best = "" if progress.value is None else f", best {short_number(progress.value)}"
        return f"{name}: epoch {progress.epoch}{best}" if progress.epoch else f"{name}: starting"

    def _text(self, total: int, running: list[str]) -> str:
        parts = [f"{self.sweep.name}: {len(self._ended)} of {total} done"]
        parts += [f"{len(running)} running ({'; '.join(running)})"] if running else []
        if self._seconds and len(self._ended) < total:
            mean = sum(self._seconds) / len(self._seconds)
            spent = sum(min(time.monotonic() - progress.since, mean) for progress in self._running.values())
            left = (mean * (total - len(self._ended)) - spent) / self.workers
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)


def _names(jobs: Iterable[SweepJob]) -> dict[str, str]:
    """Short names of jobs by their folders: the settings that vary."""
    jobs = list(jobs)
    varied = swept([job.settings for job in jobs])
    return {job.folder: " ".join(f"{k}={v}" for k, v in job.settings.items() if k in varied) for job in jobs}
