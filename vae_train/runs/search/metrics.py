"""The metrics that decide a search: what they are called, which direction is better, and where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vae_train.runs.files import RunFiles
from vae_train.runs.html_report.evaluations import info_of
from vae_train.runs.run import read_json
from vae_train.training.loggers.files import best_row, read_metrics
from vae_train.training.state import SUMMARIZED
from vae_train.util.errors import RunError

MONITORED = "monitored"
"""The value by which the best epoch is chosen."""

VALIDATED = ("loss", *SUMMARIZED)
"""Metrics of every validation, which can be reported while a run trains."""

MINIMIZED = (MONITORED, "loss", "rate", "total_correlation", "dimension_wise_kl")
"""Metrics that a search minimises although their descriptions do not say that lower values are better."""

NOT_COMPARABLE = ("beta", "objective", "trainer.monitor")
"""Beginnings of settings that change by what the best epoch is chosen, so that other trials have other values."""


def direction(metric: str) -> Literal["minimize", "maximize"]:
    """Which values of a metric a search looks for; it maximises metrics of which neither direction is better."""
    return "minimize" if metric in MINIMIZED or info_of(metric).better == "lower" else "maximize"


def is_validated(metric: str) -> bool:
    """Whether every validation has a metric; those of `vae eval` are computed when a run has ended."""
    return metric == MONITORED or metric in VALIDATED


def metric_text(metric: str, value: float) -> str:
    """A metric with its value, for messages."""
    return f"{'monitored value' if metric == MONITORED else metric} {value:.5g}"


def default_metric(keys: Sequence[str]) -> str:
    """The metric of a search without `search.metric`.

    Args:
        keys: the settings that it varies.
    """
    return "elbo" if any(key.startswith(NOT_COMPARABLE) for key in keys) else MONITORED


def validated_value(run: RunFiles, metric: str) -> float:
    """The value of a metric in the best epoch's validation.

    Raises:
        RunError: the run has no such value.
    """
    row = best_row(read_metrics(run.metrics_file), read_json(run.summary_file).get("best_epoch"))
    if row.get("split") != "valid" or metric not in row:
        raise RunError(f"the validations of {run.folder} have no {metric}")
    return float(row[metric])
