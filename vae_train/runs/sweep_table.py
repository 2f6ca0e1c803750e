"""The table of a sweep's results."""

from __future__ import annotations

import csv
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_train.runs.run import read_json
from vae_train.runs.sweep_file import SweepJob, swept

log = logging.getLogger("vae_train")


def report(sweep: Path, jobs: Sequence[SweepJob], errors: Mapping[str, str]) -> None:
    """Writes sweep.csv and logs the table.

    Args:
        sweep: the folder of the sweep.
        jobs: its jobs.
        errors: the errors of jobs that have just failed, by the names of their folders.
    """
    rows = [_row(number, job, sweep, errors.get(job.folder)) for number, job in enumerate(jobs)]
    varied = swept([job.settings for job in jobs])
    with (sweep / "sweep.csv").open("w", newline="") as file:
        columns = ["job", *varied, "status", "best_elbo", "best_by", "seconds", "folder", "error"]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    _log_table(rows, varied)
    for job, row in zip(jobs, rows, strict=True):
        if row["status"] == "failed":
            path = job.files(sweep).log_file
            see = f"; log: {path}" if path.exists() else ""
            log.info("failed: %d (%s): %s%s", row["job"], " ".join(job.overrides), row["error"], see)
    done = sum(row["status"] == "done" for row in rows)
    log.info("%d of %d jobs done; table: %s", done, len(rows), sweep / "sweep.csv")
    allowed = [override for override in jobs[0].overrides if override.startswith("allow=")]
    log.info("report as one HTML page: vae report %s", shlex.join([f"run={sweep}", *allowed]))


def _row(number: int, job: SweepJob, sweep: Path, error: str | None) -> dict[str, Any]:
    summary = read_json(job.files(sweep).summary_file)
    return {
        **job.settings,
        "job": number,
        "status": "failed" if error else job.status(sweep),
        "best_elbo": summary.get("best_elbo", summary.get("train_elbo")),
        "best_by": summary.get("best_by", ""),
        "seconds": summary.get("seconds"),
        "folder": str(job.files(sweep).folder),
        "error": error or summary.get("error", ""),
    }


def _log_table(rows: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> None:
    finished = [row for row in rows if row["status"] == "done" and row["best_elbo"] is not None]
    best = max((row["best_elbo"] for row in finished), default=None)
    cells = [["job", *varied, "status", "ELBO", "s", ""]]
    for row in rows:
        elbo = "" if row["best_elbo"] is None else f"{row['best_elbo']:.2f}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        mark = " best by ELBO" if row in finished and row["best_elbo"] == best else ""
        cells.append([*(str(row.get(key, "")) for key in ("job", *varied, "status")), elbo, seconds, mark])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        log.info("  %s", "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
