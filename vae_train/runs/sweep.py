"""Trains the jobs of a sweep in one folder, and writes the table of their results."""

import csv
import logging
import re
import shlex
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_train.runs.files import RunFiles
from vae_train.runs.run import OUTPUTS, is_folder_name, new_folder, read_json, write_json
from vae_train.util.errors import ErrorDetail, FolderGoneError
from vae_train.util.files import FolderGuard, appending

log = logging.getLogger("vae_train")


SWEEPS = OUTPUTS / "sweeps"

JOBS_FILE = "jobs.json"

MAX_NAME_LENGTH = 80
"""Maximal length of the name of a job's folder, in characters."""


def name_errors(name: str) -> list[ErrorDetail]:
    """Reports an invalid name of a sweep."""
    where = f"sweep={name}"
    if not is_folder_name(name):
        return [ErrorDetail(where, "is not a valid folder name")]
    if (SWEEPS / name).exists():
        return [ErrorDetail(where, f"{SWEEPS / name} already exists; choose another name")]
    return []


def run_sweep(name: str, jobs: Sequence[Sequence[str]], train: Callable[[int, Path], object]) -> int:
    """Trains all jobs in sequence. A job that fails keeps its log and does not stop the others.

    Args:
        name: names the folder; a number is appended if it exists.
        jobs: the overrides of every job, for the table.
        train: trains job number i in a folder.

    Returns:
        The number of jobs that did not finish.

    Raises:
        FolderGoneError: the folder of the sweep was deleted or renamed.
    """
    folder = new_folder(SWEEPS / name)
    write_json(folder / JOBS_FILE, [list(job) for job in jobs])
    settings = [dict(override.lstrip("+").split("=", 1) for override in job) for job in jobs]
    swept = _swept(settings)
    files = [RunFiles(folder / _job_name(*job, swept)) for job in enumerate(settings)]
    errors: dict[int, str] = {}
    log.info("vae train: %d jobs in %s", len(jobs), folder)
    with FolderGuard(folder, JOBS_FILE) as guard:
        try:
            for number, job in enumerate(jobs):
                guard.check()
                log.info("[%d/%d] %s", number + 1, len(jobs), " ".join(job))
                try:
                    train(number, files[number].folder)
                except Exception as error:
                    guard.check()
                    log.error("failed: %s", error)
                    errors[number] = str(error)
                    if not isinstance(error, FolderGoneError):
                        _record_failure(files[number], error)
        finally:
            rows = [_row(number, files[number], job, errors.get(number)) for number, job in enumerate(settings)]
            if guard.is_in_place():
                _report(folder, jobs, rows, swept)
    return sum(row["status"] != "done" for row in rows)


def _job_name(number: int, settings: Mapping[str, str], swept: Sequence[str]) -> str:
    """Names the folder of a job by its number and the swept settings, for instance `3-beta=4-seed=1`."""
    parts = [f"{key.rpartition('.')[2]}={settings[key]}" for key in swept]
    name = "-".join([str(number), *parts])
    return re.sub(r"[^\w.,=+-]+", "_", name)[:MAX_NAME_LENGTH].rstrip("._")


def _record_failure(files: RunFiles, error: Exception) -> None:
    """Writes status and traceback of a job, which may have failed before its folder was created."""
    files.folder.mkdir(exist_ok=True)
    if not files.summary_file.exists():
        write_json(files.summary_file, {"status": "failed", "error": str(error)})
    with appending(files.log_file) as file:
        file.write(traceback.format_exc())


def _row(number: int, files: RunFiles, settings: Mapping[str, str], error: str | None) -> dict[str, Any]:
    status = "failed" if error else "unknown" if files.folder.exists() else "not started"
    summary = {"status": status, "error": error or ""} | read_json(files.summary_file)
    return {
        **settings,
        "job": number,
        "status": summary["status"],
        "best_elbo": summary.get("best_elbo", summary.get("train_elbo")),
        "best_by": summary.get("best_by", ""),
        "seconds": summary.get("seconds"),
        "folder": str(files.folder),
        "error": summary["error"],
    }


def _report(folder: Path, jobs: Sequence[Sequence[str]], rows: list[dict[str, Any]], swept: list[str]) -> None:
    """Writes sweep.csv and logs the table."""
    with (folder / "sweep.csv").open("w", newline="") as file:
        columns = ["job", *swept, "status", "best_elbo", "best_by", "seconds", "folder", "error"]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    _log_table(rows, swept)
    for job, row in zip(jobs, rows, strict=True):
        if row["status"] == "failed":
            path = RunFiles(Path(row["folder"])).log_file
            see = f"; log: {path}" if path.exists() else ""
            log.info("failed: %d (%s): %s%s", row["job"], " ".join(job), row["error"], see)
    done = sum(row["status"] == "done" for row in rows)
    log.info("%d of %d jobs done; table: %s", done, len(rows), folder / "sweep.csv")
    allowed = [override for override in jobs[0] if override.startswith("allow=")]
    log.info("report as one HTML page: vae report %s", shlex.join([f"run={folder}", *allowed]))


def _swept(jobs: Sequence[Mapping[str, str]]) -> list[str]:
    """The settings in which the jobs differ; all of them if there is one job."""
    keys = [key for key in jobs[0] if key not in ("sweep", "out")]
    return [key for key in keys if len({job[key] for job in jobs}) > 1] or keys


def _log_table(rows: list[dict[str, Any]], swept: list[str]) -> None:
    finished = [row for row in rows if row["status"] == "done" and row["best_elbo"] is not None]
    best = max((row["best_elbo"] for row in finished), default=None)
    cells = [["job", *swept, "status", "ELBO", "s", ""]]
    for row in rows:
        elbo = "" if row["best_elbo"] is None else f"{row['best_elbo']:.2f}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        mark = " best by ELBO" if row in finished and row["best_elbo"] == best else ""
        cells.append([*(str(row[key]) for key in ("job", *swept, "status")), elbo, seconds, mark])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        log.info("  %s", "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
