"""`vae reproduce`: trains a saved configuration again and compares the figures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vae_train.runs.run import Run
from vae_train.util.errors import ErrorDetail, RunError
from vae_train.util.ranges import NonNegativeFloat

log = logging.getLogger("vae_train")

WALL_CLOCK = ("images_per_second", "data_wait")


@dataclass
class Settings:
    """The top of conf/reproduce.yaml."""

    run: str
    tolerance: NonNegativeFloat
    device: str | None
    out: str | None
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """A run that is not there or has no figures, and whatever would be wrong with it as a new one."""
    from vae_train.runs.build import data_errors, execution_errors, folder_errors, open_run
    from vae_train.util.runtime import prepare

    run, found = open_run(cfg.run, f"run={cfg.run}", cfg.allow)
    if run is None:
        return found
    saved = _configuration(run, cfg)
    if not (run.folder / "metrics.jsonl").exists():
        return [ErrorDetail(f"run={cfg.run}", f"{run.folder} has no metrics.jsonl to compare with")]
    prepare(saved.threads, saved.learner.precision)
    return execution_errors(saved) + folder_errors(cfg) + data_errors(saved)


def run(cfg: DictConfig) -> float:
    """Trains again and compares; returns the difference of the last ELBOs in nats.

    Raises:
        RunError: they differ by more than the tolerance.
    """
    from vae_train.cli.commands.train import start
    from vae_train.training.loggers.files import read_metrics

    opened = Run.open(cfg.run)
    saved = _configuration(opened, cfg)
    folder = Path(str(cfg.out)) if cfg.out else None
    saved.name = f"{saved.name}-again"
    new, _ = start(saved, folder)
    then, now = (read_metrics(run.folder / "metrics.jsonl") for run in (opened, new))
    return _compare(then, now, cfg.tolerance)


def _compare(old: list[dict[str, Any]], new: list[dict[str, Any]], tolerance: float) -> float:
    def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in rows]

    if comparable(old) == comparable(new):
        log.info("identical: all %d rows of metrics.jsonl, bit for bit", len(old))
        return 0.0
    last_old, last_new = _last_epoch(old), _last_epoch(new)
    log.info("%-14s %14s %14s %12s", "last epoch", "then", "now", "difference")
    for name, then in last_old.items():
        now = last_new.get(name)
        if isinstance(then, float) and isinstance(now, float) and name not in WALL_CLOCK:
            log.info("%-14s %14.4f %14.4f %12.2g", name, then, now, now - then)
    difference = abs(last_new.get("elbo", float("nan")) - last_old["elbo"])
    if not difference <= tolerance:
        raise RunError(f"the ELBO differs by {difference:.3g} nats, more than tolerance={tolerance:g}")
    log.info("reproduced: the ELBO differs by %.2g nats, within tolerance=%g", difference, tolerance)
    return difference


def _last_epoch(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for row in rows if row["scope"] == "epoch"]
    return next((r for r in reversed(rows) if r["split"] == "valid"), rows[-1]) if rows else {"elbo": float("nan")}


def _configuration(run: Run, cfg: DictConfig) -> DictConfig:
    saved = run.config.copy()
    saved.allow = cfg.allow
    if cfg.device:
        saved.device = cfg.device
        saved.execution = saved.trainer.execution = "auto"  # looked up anew for another device
    return saved
