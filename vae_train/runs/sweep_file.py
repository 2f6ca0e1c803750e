"""The file of a sweep, which lists its jobs: what they are, how they were typed, and the folders of their runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vae_train.runs.files import RunFiles
from vae_train.runs.run import OUTPUTS, read_json, write_json
from vae_train.util.errors import RunError

SWEEPS = OUTPUTS / "sweeps"

SWEEP_FILE = "sweep.json"

NEUTRAL = ("device", "threads", "execution", "trainer.execution", "name", "data.cache", "logger", "loader")
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

    def status(self, sweep: Path) -> str:
        """The status of its run: "done", "failed", "running" or "stopped", or "not started"."""
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


def write_jobs(sweep: Path, jobs: Sequence[SweepJob]) -> None:
    """Writes the jobs of a sweep."""
    write_json(sweep / SWEEP_FILE, {"jobs": [job._asdict() for job in jobs]})


def with_jobs(known: Sequence[SweepJob], more: Sequence[SweepJob]) -> list[SweepJob]:
    """The known jobs and those that are new, which get the names of their folders.

    Args:
        known: the jobs of the sweep so far.
        more: jobs, the new ones without a folder.
    """
    keys = {job.key for job in known}
    new = list({job.key: job for job in more if job.key not in keys}.values())
    varied = swept([job.settings for job in [*known, *new]])
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
