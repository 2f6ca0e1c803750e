"""The file of a sweep, which lists its jobs: what they are, how they were typed, and the folders of their runs.

Their configurations are files beside it, from which any process can train them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_train.runs.config import Config
from vae_train.runs.files import LOCK_FILE, RunFiles
from vae_train.runs.run import OUTPUTS, read_json, write_json
from vae_train.runs.statuses import ENDED
from vae_train.util.errors import RunError
from vae_train.util.locks import locked

SWEEPS = OUTPUTS / "sweeps"

SWEEP_FILE, JOBS_FOLDER = "sweep.json", "jobs"

NEUTRAL = ("device", "threads", "execution", "trainer.execution", "name", "keep", "data.cache", "logger", "loader")
"""Beginnings of the settings that change no number of a job, except for rounding."""

MAX_NAME_LENGTH = 80
"""Maximal length of the name of a job's folder, in characters."""


class SweepJob(NamedTuple):
    """A job of a sweep."""

    key: str
    """Digest of its configuration without `NEUTRAL` settings."""
    folder: str
    """The name of its folder, which never changes."""
    overrides: tuple[str, ...]
    """As typed."""
    composed: tuple[str, ...]
    """As Hydra reads them."""

    @property
    def settings(self) -> dict[str, str]:
        """The typed settings."""
        return dict(override.lstrip("+").split("=", 1) for override in self.overrides)

    def files(self, sweep: Path) -> RunFiles:
        """The files of its run."""
        return RunFiles(sweep / self.folder)

    def config_file(self, sweep: Path) -> Path:
        """Its configuration, which exists before its run."""
        return sweep / JOBS_FOLDER / f"{self.folder}.yaml"

    def status(self, sweep: Path) -> str:
        """The status of its run: "done", "pruned", "failed", "running" or "stopped", or "not started".

        A run that was killed is still "running"; whether it is running is known to its lock alone.
        """
        files = self.files(sweep)
        found = str(read_json(files.summary_file).get("status", ""))
        return found or ("stopped" if files.config_file.exists() else "not started")


def read_jobs(sweep: Path) -> list[SweepJob]:
    """The jobs of a sweep; empty if there is no such sweep.

    Raises:
        RunError: its file is damaged.
    """
    path = sweep / SWEEP_FILE
    if not path.exists():
        return []
    try:
        entries = read_json(path)["jobs"]
        jobs = [SweepJob(str(e["key"]), str(e["folder"]), tuple(e["overrides"]), tuple(e["composed"])) for e in entries]
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged; restore it, or choose another name for the sweep") from error
    if any(Path(job.folder).name != job.folder or not job.folder.strip(".") for job in jobs):
        raise RunError(f"{path} names a folder outside of the sweep; restore it")
    return jobs


def add_jobs(sweep: Path, more: Mapping[SweepJob, Config], varied: Sequence[str] = ()) -> list[SweepJob]:
    """Adds jobs to a sweep and stores their configurations; returns all of its jobs.

    All else in the file of the sweep is kept, such as results of jobs.

    Args:
        sweep: the folder of the sweep.
        more: jobs with their configurations, which replace those of known jobs that are not done. New jobs have no
            folder yet.
        varied: the settings that name the folders; by default those in which jobs differ.
    """
    with locked(sweep / LOCK_FILE, wait=True):
        known = read_jobs(sweep)
        jobs = _with_jobs(known, list(more), varied)
        configs = {job.key: config for job, config in more.items()}
        (sweep / JOBS_FOLDER).mkdir(exist_ok=True)
        for job in jobs:
            if job.key in configs and job.status(sweep) not in ENDED:
                configs[job.key].write(job.config_file(sweep))
        if jobs != known or not (sweep / SWEEP_FILE).exists():
            content = read_json(sweep / SWEEP_FILE)
            entries = [*_entries(content), *(job._asdict() for job in jobs[len(known) :])]
            write_json(sweep / SWEEP_FILE, content | {"jobs": entries})
    return jobs


def write_results(sweep: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds the results of jobs to the file of their sweep; all else in it is kept, such as jobs added meanwhile.

    Args:
        sweep: the folder of the sweep.
        results: key of a job -> what it has found so far.
    """
    with locked(sweep / LOCK_FILE, wait=True):
        content = read_json(sweep / SWEEP_FILE)
        known = [entry for entry in _entries(content) if entry["key"] in results]
        for entry in known:
            entry["results"] = dict(results[entry["key"]])
        if known:  # else the file cannot be read, and must not be replaced by an empty one
            write_json(sweep / SWEEP_FILE, content)


def _entries(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of jobs in the file of a sweep."""
    entries = content.get("jobs")
    listed = entries if isinstance(entries, list) else []
    return [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("key"), str)]


def _with_jobs(known: Sequence[SweepJob], more: Sequence[SweepJob], varied: Sequence[str] = ()) -> list[SweepJob]:
    """The known jobs and those that are new, which get the names of their folders.

    Args:
        known: the jobs of the sweep so far.
        more: jobs, the new ones without a folder.
        varied: see `add_jobs`.
    """
    keys = {job.key for job in known}
    new = list({job.key: job for job in more if job.key not in keys}.values())
    varied = varied or swept([job.settings for job in [*known, *new]])
    named = [job._replace(folder=_folder(number, job.settings, varied)) for number, job in enumerate(new, len(known))]
    return [*known, *named]


def swept(jobs: Sequence[Mapping[str, str]]) -> list[str]:
    """The settings in which jobs differ, besides those that change no number; all of them if there is one job."""
    typed = dict.fromkeys(key for job in jobs for key in job)
    keys = [key for key in typed if not key.startswith(("sweep", *NEUTRAL))]
    return [key for key in keys if len({job.get(key) for job in jobs}) > 1] or keys


def _folder(number: int, settings: Mapping[str, str], varied: Sequence[str]) -> str:
    """Names the folder of a job by its number and the swept settings, for instance `3-beta=4-seed=1`."""
    parts = [f"{key.rpartition('.')[2]}={settings[key]}" for key in varied if key in settings]
    name = "-".join([str(number), *parts])
    return re.sub(r"[^\w.,=+-]+", "_", name)[:MAX_NAME_LENGTH].rstrip("._")
