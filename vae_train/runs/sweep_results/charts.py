"""The charts of a sweep, in its folder: metrics over one or two settings, and rate against distortion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_train.plotting.png import PlotFormat
from vae_train.plotting.sweeps import MAX_LINES, Series, Tradeoff, plot_rate_distortion, plot_setting, plot_setting_map
from vae_train.runs.sweep_results.best import Verdict
from vae_train.runs.sweep_results.points import Mean, Point, info

CURVE, MAP, RATE_DISTORTION = "sweep-curve", "sweep-map", "sweep-rate-distortion"
"""Names of the charts without the suffix."""

CURVES = ("elbo", "rate", "distortion", "active_units")
"""Metrics over a single setting, besides the one that decides."""

BETA = "beta"


def write_charts(
    sweep: Path, points: Sequence[Point], verdict: Verdict, kind: PlotFormat = "png", is_search: bool = False
) -> list[Path]:
    """Writes the charts that the settings of a sweep allow, and removes outdated ones.

    Args:
        sweep: the folder of the sweep.
        points: its points.
        verdict: the metric that is shown, and the best point; the ELBO is shown without one.
        kind: file format.
        is_search: whether a search chose the settings, so that few of them share a value, as a heat map needs.

    Returns:
        The files: a curve over one setting, or a heat map over two; also rate against distortion where beta varies.
    """
    paths = {name: sweep / f"{name}.{kind}" for name in (CURVE, MAP, RATE_DISTORTION)}
    finished, written = [point for point in points if point.done], list[Path]()
    settings = list(finished[0].settings) if len(finished) > 1 else []
    metric = verdict.judge.metric if verdict.judge else "elbo"
    if not any(point.mean(metric) for point in finished):
        metric = "distortion"
    if len(settings) == 1:
        written += _curve(settings[0], finished, metric, paths[CURVE])
    if len(settings) == 2 and not is_search:
        written += _map((settings[0], settings[1]), finished, metric, verdict, paths[MAP])
    if BETA in settings:
        written += _tradeoff([name for name in settings if name != BETA], finished, paths[RATE_DISTORTION])
    for path in paths.values():
        if path not in written:
            path.unlink(missing_ok=True)
    return written


def _curve(setting: str, points: Sequence[Point], metric: str, path: Path) -> list[Path]:
    """Writes metrics over a setting, which are means over seeds with their standard deviation."""
    numbers = [_number(point.settings[setting]) for point in points]
    is_number = all(number is not None for number in numbers)
    ordered = sorted(points, key=lambda point: _number(point.settings[setting]) or 0.0) if is_number else list(points)
    charts = dict[str, Sequence[Series]]()
    for name in dict.fromkeys((metric, *CURVES)):
        known = [(point, mean) for point in ordered if (mean := point.mean(name)) is not None]
        texts = [point.settings[setting] for point, _ in known]
        x = [float(text) for text in texts] if is_number else texts
        if known:
            line = Series("", x, [mean.value for _, mean in known], [_sd(mean) for _, mean in known])
            charts[info(name).label] = [line]
    if not charts:
        return []
    plot_setting(setting, charts, path)
    return [path]


def _map(settings: tuple[str, str], points: Sequence[Point], metric: str, verdict: Verdict, path: Path) -> list[Path]:
    """Writes a heat map of a metric over two settings."""
    rows, columns = (_in_order([point.settings[name] for point in points]) for name in settings)
    mean, sd = (np.full((len(rows), len(columns)), math.nan) for _ in range(2))
    best = None
    for point in points:
        row, column = (names.index(point.settings[key]) for names, key in zip((rows, columns), settings, strict=True))
        if (value := point.mean(metric)) is not None:
            mean[row, column], sd[row, column] = value.value, _sd(value)
        if point is verdict.best:
            best = row, column
    if np.isnan(mean).all():
        return []
    plot_setting_map(settings, (rows, columns), mean, sd, info(metric).label, path, best)
    return [path]


def _tradeoff(others: Sequence[str], points: Sequence[Point], path: Path) -> list[Path]:
    """Writes rate against distortion, with a line through all beta for every combination of the other settings."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point.mean("rate") and point.mean("distortion") and _number(point.settings[BETA]) is not None:
            groups.setdefault(" ".join(f"{key}={point.settings[key]}" for key in others), []).append(point)
    curves = list[Tradeoff]()
    for name, group in list(groups.items())[:MAX_LINES]:
        group.sort(key=lambda point: -float(point.settings[BETA]))
        rates, distortions = ([point.mean(metric) for point in group] for metric in ("rate", "distortion"))
        values = [[mean.value for mean in means if mean] for means in (rates, distortions)]
        deviations = [[_sd(mean) for mean in means if mean] for means in (rates, distortions)]
        labels = [point.settings[BETA] for point in group]
        curves.append(Tradeoff(name, labels, values[0], deviations[0], values[1], deviations[1]))
    if not curves:
        return []
    plot_rate_distortion(BETA, curves, path)
    return [path]


def _in_order(texts: Sequence[str]) -> list[str]:
    """Distinct values; ascending if all are numbers, else in their first order."""
    distinct = list(dict.fromkeys(texts))
    numbers = {text: _number(text) for text in distinct}
    return sorted(distinct, key=lambda text: numbers[text] or 0.0) if None not in numbers.values() else distinct


def _number(text: str) -> float | None:
    """The number that a text is; None for other texts."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _sd(mean: Mean) -> float:
    return math.nan if mean.sd is None else mean.sd
