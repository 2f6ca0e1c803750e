"""Trains a run's configuration again and compares the metrics."""

import logging
import math
from pathlib import Path
from typing import Any

from vae_train.data.session import DataSession
from vae_train.runs.builder import Builder
from vae_train.runs.config import Config
from vae_train.runs.run import Run
from vae_train.runs.train import changed, train
from vae_train.training.loggers.files import read_metrics
from vae_train.util.errors import RunError

log = logging.getLogger("vae_train")

CLOCK_METRICS = ("images_per_second", "data_wait")
"""Metrics that differ between two equal runs."""


def reproduce(
    run: Run, device: str | None, folder: Path | None, tolerance: float, session: DataSession, builder: Builder
) -> float:
    """Trains the configuration of `run` in a new folder; returns the difference of the last ELBOs in nats.

    Args:
        run: the run that is repeated.
        device: another device than the run's.
        folder: the new folder; None for one under outputs/.
        tolerance: difference of the last ELBOs that is accepted, in nats.
        session: holds data that was read before.
        builder: locates classes.

    Raises:
        RunError: the ELBOs differ by more than `tolerance`.
    """
    repeated = train(configuration(run, device), folder, session, builder)
    return _compare(read_metrics(run.metrics_file), read_metrics(repeated.metrics_file), tolerance)


def configuration(run: Run, device: str | None) -> Config:
    """The run's configuration for a second training, by default on the same device."""
    config = run.config if device is None else changed(run.config, {"device": device})
    return config.with_values({"name": f"{run.config['name']}-again"})


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics without those that depend on the clock."""
    return {name: value for name, value in row.items() if name not in CLOCK_METRICS}


def _compare(before: list[dict[str, Any]], after: list[dict[str, Any]], tolerance: float) -> float:
    if list(map(without_clock, before)) == list(map(without_clock, after)):
        log.info("identical: all %d rows of metrics.jsonl, bit for bit", len(before))
        return 0.0
    old, new = without_clock(_last_epoch(before)), _last_epoch(after)
    log.info("%-14s %14s %14s %12s", "last epoch", "before", "now", "difference")
    for name, value in old.items():
        if isinstance(value, float) and isinstance(new.get(name), float):
            log.info("%-14s %14.4f %14.4f %12.2g", name, value, new[name], new[name] - value)
    difference = abs(new.get("elbo", math.nan) - old.get("elbo", math.nan))
    if not difference <= tolerance:
        raise RunError(f"the ELBO differs by {difference:.3g} nats, more than tolerance={tolerance:g}")
    log.info("reproduced: the ELBO differs by %.2g nats, within tolerance=%g", difference, tolerance)
    return difference


def _last_epoch(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for row in rows if row["scope"] == "epoch"]
    valid = [row for row in rows if row["split"] == "valid"]
    return (valid or rows or [{}])[-1]
