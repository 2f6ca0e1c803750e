"""Finds the runs that a command names, and gives them short names."""

import os
from collections.abc import Sequence
from pathlib import Path

from vae_train.runs.files import CONFIG_FILE
from vae_train.runs.run import Run, find, runs_below
from vae_train.runs.sweep_file import SWEEP_FILE, read_jobs
from vae_train.util.errors import ErrorDetail, UsageError, collecting


def find_runs(names: str | Sequence[str]) -> list[Path]:
    """The folders of a run (see `Run.open`), of all runs below a folder, or of several of these, without duplicates.

    Raises:
        UsageError: names without a run; lists all of them.
    """
    folders, errors = list[Path](), list[ErrorDetail]()
    for name in [names] if isinstance(names, str) else names:
        with collecting(errors, f"run={name}"):
            below = [] if (Path(name) / CONFIG_FILE).is_file() else runs_below(Path(name))
            folders += below or [find(name)]
    if errors:
        raise UsageError(errors)
    return list(dict.fromkeys(folders))


def sweep_of(names: str | Sequence[str]) -> Path | None:
    """The folder of the sweep that a command names; None for other folders, runs and lists."""
    return Path(names) if isinstance(names, str) and (Path(names) / SWEEP_FILE).is_file() else None


def finished_runs(names: str | Sequence[str]) -> list[Path]:
    """The folders of runs, see `find_runs`; of a sweep those of the jobs that are done.

    Raises:
        UsageError: see `find_runs`, or no job of the sweep is done.
    """
    if (sweep := sweep_of(names)) is None:
        return find_runs(names)
    done = [job.files(sweep).folder for job in read_jobs(sweep) if job.status(sweep) == "done"]
    if not done:
        raise UsageError([ErrorDetail(f"run={names}", "no job of this sweep is done yet")])
    return done


def names_of(runs: Sequence[Run]) -> list[str]:
    """Short, distinct names of runs: their paths relative to the deepest common folder."""
    folders = [run.folder.resolve() for run in runs]
    common = Path(os.path.commonpath([folder.parent for folder in folders]))
    return [str(folder.relative_to(common)) for folder in folders]
