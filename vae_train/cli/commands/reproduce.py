"""`vae reproduce`: trains a saved configuration again and compares the metrics."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_train.cli.jobs import Job
from vae_train.runs.check import execution_errors, run_data_errors
from vae_train.runs.config import Config, changed
from vae_train.runs.metrics_check import check_rows
from vae_train.runs.run import Run, folder_errors
from vae_train.runs.tracking import without_trackers
from vae_train.runs.train import train
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers.files import read_metrics
from vae_train.util.errors import ErrorDetail, RunError
from vae_train.util.ranges import NonNegativeFloat

log = logging.getLogger("vae_train")

CLOCK_METRICS = ("images_per_second", "data_wait")
"""Metrics that depend on the clock and differ between identical runs."""


@dataclass
class Settings:
    """The top-level settings of conf/reproduce.yaml."""

    run: str
    tolerance: NonNegativeFloat
    device: str | None
    out: str | None
    strict: bool


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a run that does not exist or has no metrics, and all errors of training it again."""
    run = job.open(settings.run)
    if not run.metrics_file.exists():
        return [ErrorDetail(f"run={settings.run}", f"{run.metrics_file} does not exist; nothing to compare with")]
    config = _configuration(run, settings.device, job)
    return (
        execution_errors(config)
        + folder_errors(settings.out, config["name"])
        + run_data_errors(run, config, job.session, job.builder)
    )


def run(settings: Settings, job: Job) -> None:
    """Trains again and compares.

    Raises:
        RunError: the last ELBOs differ by more than the tolerance.
    """
    run, folder = job.open(settings.run), Path(settings.out) if settings.out else None
    if "last" in Checkpoints(run.checkpoints).names():
        check_rows(run, run.state("last"))
    repeated = train(_configuration(run, settings.device, job), folder, job.session, job.builder)
    before, after = read_metrics(run.metrics_file), read_metrics(repeated.metrics_file)
    if run.summary()["status"] == "pruned" and before:
        log.info("the run was pruned after epoch %d, and is compared until there", before[-1]["epoch"])
        after = [row for row in after if row["step"] <= before[-1]["step"]]
    _compare(before, after, settings.tolerance)


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics without those that depend on the clock."""
    return {name: value for name, value in row.items() if name not in CLOCK_METRICS}


def _configuration(run: Run, device: str | None, job: Job) -> Config:
    """The run's configuration for a second training, by default on the same device; nothing is sent to trackers."""
    config = run.config if device is None else changed(run.config, {"device": device})
    return without_trackers(config, job.builder).with_values({"name": f"{run.config['name']}-again"})


def _compare(before: list[dict[str, Any]], after: list[dict[str, Any]], tolerance: float) -> None:
    """Logs the metrics of two trainings side by side."""
    if list(map(without_clock, before)) == list(map(without_clock, after)):
        log.info("identical: all %d rows of metrics.jsonl, bit for bit", len(before))
        return
    old, new = without_clock(_last_epoch(before)), _last_epoch(after)
    log.info("%-14s %14s %14s %12s", "last epoch", "before", "now", "difference")
    for name, value in old.items():
        if isinstance(value, float) and isinstance(new.get(name), float):
            log.info("%-14s %14.4f %14.4f %12.2g", name, value, new[name], new[name] - value)
    difference = abs(new.get("elbo", math.nan) - old.get("elbo", math.nan))
    if not difference <= tolerance:
        raise RunError(f"the ELBO differs by {difference:.3g} nats, more than tolerance={tolerance:g}")
    log.info("reproduced: the ELBO differs by %.2g nats, within tolerance=%g", difference, tolerance)


def _last_epoch(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for row in rows if row["scope"] == "epoch"]
    valid = [row for row in rows if row["split"] == "valid"]
    return (valid or rows or [{}])[-1]
