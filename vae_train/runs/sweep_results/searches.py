"""The results of a search: the metric that decides, the course of its trials, and which settings matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from vae_train.plotting.png import PlotFormat
from vae_train.plotting.sweeps import plot_importance, plot_search_history
from vae_train.runs.search.history import History, read_importances
from vae_train.runs.search.metrics import MONITORED, VALIDATED
from vae_train.runs.sweep_results.best import Judge
from vae_train.runs.sweep_results.points import Point, info, metric_names

HISTORY, IMPORTANCE = "sweep-history", "sweep-importance"
"""Names of the charts without the suffix."""


def search_judge(history: History, points: Sequence[Point]) -> Judge | None:
    """The metric of a search, by which its points are ranked; None for the usual one, or if there are several.

    Args:
        history: the trials of the search.
        points: the points of its sweep.
    """
    if len(history.metrics) != 1 or history.metrics[0] == MONITORED:
        return None
    (metric,), (direction,) = history.metrics, history.directions
    name = {"loss": "valid_loss"}.get(metric, metric) if metric in VALIDATED else f"valid.{metric}"
    return Judge(name, "higher" if direction == "maximize" else "lower") if name in metric_names(points) else None


def write_search_charts(sweep: Path, history: History, kind: PlotFormat = "png") -> list[Path]:
    """Writes the values of the trials in their order, and the importances of the settings; removes outdated charts.

    Args:
        sweep: the folder of the sweep.
        history: the trials of the search.
        kind: file format.

    Returns:
        The files; none for a search by several metrics.
    """
    paths, written = [sweep / f"{name}.{kind}" for name in (HISTORY, IMPORTANCE)], list[Path]()
    if len(history.metrics) == 1:
        (metric,), (direction,) = history.metrics, history.directions
        title = "monitored value" if metric == MONITORED else info(metric).label
        values = [_value(trial.values, trial.validations) for trial in history.trials]
        if any(map(math.isfinite, values)):
            pruned = [trial.state == "pruned" for trial in history.trials]
            plot_search_history(values, paths[0], title, "higher" if direction == "maximize" else "lower", pruned)
            written.append(paths[0])
        if importances := read_importances(sweep):
            plot_importance(list(importances), list(importances.values()), paths[1], title)
            written.append(paths[1])
    for path in paths:
        if path not in written:
            path.unlink(missing_ok=True)
    return written


def _value(values: Sequence[float], validations: object) -> float:
    """The value of a trial; for one without, the last that was reported, or NaN."""
    reported = list(validations.values()) if isinstance(validations, dict) else []
    return values[0] if values else reported[-1] if reported else math.nan
