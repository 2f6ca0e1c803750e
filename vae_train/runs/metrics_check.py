"""Checks the recorded metrics of a run against a checkpoint."""

from collections.abc import Mapping
from typing import Any

from vae_train.runs.run import Run
from vae_train.training.loggers.base import row_digest
from vae_train.training.loggers.files import read_metrics


def check_rows(run: Run, state: Mapping[str, Any]) -> str:
    """Reports rows of metrics that do not match a checkpoint; returns the digest of the readable rows."""
    rows = [row for row in read_metrics(run.metrics_file) if row["step"] <= state["progress"]["step"]]
    digest = row_digest(rows)
    if state.get("history") not in (None, digest):
        run.report(f"{run.metrics_file} is damaged or incomplete", f"keeping the {len(rows)} readable rows")
    return digest
