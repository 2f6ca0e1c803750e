"""The table at the end of a sweep, made from the folders that its jobs left."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_train.runs.run import OUTPUTS, SUMMARY, new_folder

log = logging.getLogger("vae_train")

HIDDEN = ("sweep", "out")


def folder_error(name: str) -> str | None:
    """Why a sweep cannot have this name, or None where it can."""
    folder = OUTPUTS / "sweeps" / name
    if Path(name).name != name or name in ("", ".", ".."):
        return "is no name of a folder"
    return f"{folder} exists already: give the sweep another name" if folder.exists() else None


def create(name: str, jobs: Sequence[Sequence[str]]) -> Path:
    """Makes the sweep's folder, for this sweep alone, with a list of its jobs.

    Two sweeps that start in the same second do not share one: the later one gets a number behind its name.
    """
    folder = new_folder(OUTPUTS / "sweeps" / name)
    (folder / "jobs.json").write_text(json.dumps([list(job) for job in jobs], indent=1) + "\n")
    return folder


def finish(folder: Path) -> int:
    """Writes sweep.csv and prints the table; returns how many jobs did not end well."""
    jobs: list[list[str]] = json.loads((folder / "jobs.json").read_text())
    rows = [_row(folder / str(number), words) for number, words in enumerate(jobs)]
    swept = _swept(jobs)
    columns = ["job", *swept, "status", "best_elbo", "seconds", "folder", "error"]
    with (folder / "sweep.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"job": number, **row} for number, row in enumerate(rows))
    _print(rows, swept)
    failed = [(number, row) for number, row in enumerate(rows) if row["status"] != "done"]
    for number, row in failed:
        if row["status"] == "failed":
            log.info(
                "failed: %d (%s): %s; log: %s/train.log", number, " ".join(jobs[number]), row["error"], row["folder"]
            )
    done = len(rows) - len(failed)
    log.info("%d of %d jobs done; table: %s", done, len(rows), folder / "sweep.csv")
    return len(failed)


def _row(folder: Path, words: list[str]) -> dict[str, Any]:
    path = folder / SUMMARY
    summary = json.loads(path.read_text()) if path.exists() else {"status": "not started"}
    settings = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    best = summary.get("best_elbo", summary.get("train_elbo"))
    return settings | {
        "status": summary["status"],
        "best_elbo": best,
        "seconds": summary.get("seconds"),
        "folder": str(folder),
        "error": summary.get("error", ""),
    }


def _swept(jobs: list[list[str]]) -> list[str]:
    """The settings in which the jobs differ; all of them where there is one job."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for word in job:
            key, _, value = word.lstrip("+").partition("=")
            values.setdefault(key, set()).add(value)
    keys = [key for key in values if key not in HIDDEN]
    return [key for key in keys if len(values[key]) > 1] or keys


def _print(rows: list[dict[str, Any]], swept: list[str]) -> None:
    finite = [row["best_elbo"] for row in rows if row["status"] == "done" and row["best_elbo"] is not None]
    best = max(finite, default=math.nan)
    header = ["job", *swept, "status", "best ELBO", "s"]
    cells = [header]
    for number, row in enumerate(rows):
        elbo = "" if row["best_elbo"] is None else f"{row['best_elbo']:.2f}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        cells.append([str(number), *(str(row.get(key, "")) for key in swept), str(row["status"]), elbo, seconds])
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    for number, line in enumerate(cells):
        won = number > 0 and rows[number - 1]["status"] == "done" and rows[number - 1]["best_elbo"] == best
        mark = "   best" if won else ""
        log.info("  %s%s", "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), mark)


def job_failed(folder: Path, error: BaseException, text: str) -> None:
    """Leaves status and traceback of a job where `finish` finds them, even where the job had no folder yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SUMMARY
    if not path.exists():
        path.write_text(json.dumps({"status": "failed", "error": str(error)}) + os.linesep)
    with (folder / "train.log").open("a") as file:
        file.write(text)
