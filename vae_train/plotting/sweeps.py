"""Charts of sweeps and searches: metrics over settings, rate against distortion, and the course of a search."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vae_train.plotting.lazy import load_matplotlib
from vae_train.plotting.palette import BLUE, COLORS, GREY, ORANGE, SEQUENTIAL
from vae_train.plotting.png import legend_above, panels, write_figure

LOG_RATIO = 20
"""Ratio of the largest to the smallest positive value above which an axis is logarithmic."""

MAX_TICKS = 8
"""Number of swept values up to which each of them has a tick."""

MAX_LINES = len(COLORS)
"""Maximal number of lines in a chart, which have different colours."""

MAX_COLUMNS = 4

MAX_BARS = 20
"""Maximal number of settings in the chart of importances."""

OUTLIER_RANGE = 10.0
"""Multiple of the interquartile range; values of a search that are farther from the median are drawn at the edge."""

MAX_NAME_LENGTH = 28
"""Longest name of a tick, in characters."""


class Series(NamedTuple):
    """A metric of several points of a sweep, each the mean over seeds."""

    name: str
    """Label of the line; empty if there is one."""
    x: Sequence[float] | Sequence[str]
    """N values of a setting: numbers in ascending order, or names."""
    mean: ArrayLike
    """`(N,)` means."""
    sd: ArrayLike
    """`(N,)` standard deviations over seeds, NaN for a single seed."""


class Tradeoff(NamedTuple):
    """Rates and distortions of N models that differ in the weight of the rate."""

    name: str
    """Label of the line; empty if there is one."""
    labels: Sequence[str]
    """A label for every model, for instance its beta."""
    rate: ArrayLike
    """`(N,)` means in nats."""
    rate_sd: ArrayLike
    """`(N,)` standard deviations over seeds, NaN for a single seed."""
    distortion: ArrayLike
    distortion_sd: ArrayLike


def plot_setting(setting: str, charts: Mapping[str, Sequence[Series]], path: Path) -> None:
    """Plots metrics over a setting: lines with a band of ± one standard deviation, or points with bars for names.

    Args:
        setting: name of the setting.
        charts: title of a chart -> its lines, at most `MAX_LINES`.
        path: the file to write.
    """
    columns = min(len(charts), MAX_COLUMNS)
    rows = math.ceil(len(charts) / columns)
    figure, axes = panels(max(5.0, 3.8 * columns), 0.5 + 3.1 * rows, columns, rows)
    for axis, (title, lines) in zip(axes, charts.items(), strict=False):
        names = list(dict.fromkeys(x for line in lines for x in line.x))
        if any(isinstance(x, str) for x in names):
            _plot_names(axis, lines, list(map(str, names)))
        else:
            _plot_numbers(axis, lines)
            _number_axis(axis, sorted(map(float, names)))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(setting, fontsize=9)
    for axis in axes[len(charts) :]:
        axis.remove()
    if len(axes[0].get_legend_handles_labels()[1]) > 1:
        legend_above(figure, axes[0], columns=2 * columns)
    write_figure(figure, path)


def _plot_numbers(axis: Any, lines: Sequence[Series]) -> None:
    """Plots lines over numbers, with a band where the standard deviation is known."""
    for line, color in zip(lines, COLORS, strict=False):
        x, mean, sd = (np.asarray(values, np.float64) for values in (line.x, line.mean, line.sd))
        width = np.nan_to_num(sd)  # the band narrows to a point with a single seed
        axis.plot(x, mean, marker="o", markersize=4, color=color, label=line.name or None)
        if width.any():
            axis.fill_between(x, mean - width, mean + width, color=color, alpha=0.2, linewidth=0)


def _plot_names(axis: Any, lines: Sequence[Series], names: Sequence[str]) -> None:
    """Plots points over names, with error bars; several lines are side by side."""
    offsets = (np.arange(len(lines)) - (len(lines) - 1) / 2) * 0.6 / len(lines)
    for line, color, offset in zip(lines, COLORS, offsets, strict=False):
        x = [names.index(str(name)) + offset for name in line.x]
        style = {"fmt": "o", "markersize": 5, "capsize": 3, "color": color, "linewidth": 1.4}
        axis.errorbar(x, line.mean, np.nan_to_num(np.asarray(line.sd, np.float64)), label=line.name or None, **style)
    axis.set_xticks(range(len(names)), list(map(_short, names)), rotation=90 if max(map(len, names)) > MAX_TICKS else 0)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(visible=False, axis="x")


def _number_axis(axis: Any, values: Sequence[float]) -> None:
    """Gives every swept value a tick if they are few, on a logarithmic axis if they span decades."""
    is_log = values[0] > 0 and values[-1] >= LOG_RATIO * values[0]
    if is_log:
        axis.set_xscale("log")
    if len(values) <= MAX_TICKS:
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.minorticks_off()


def plot_setting_map(
    settings: tuple[str, str],
    values: tuple[Sequence[str], Sequence[str]],
    mean: ArrayLike,
    sd: ArrayLike,
    title: str,
    path: Path,
    best: tuple[int, int] | None = None,
) -> None:
    """Plots a metric over two settings as a heat map.

    Args:
        settings: names of the settings of the rows and of the columns.
        values: R values of the rows and C of the columns.
        mean: `(R, C)` means; NaN for points without a result.
        sd: `(R, C)` standard deviations over seeds; NaN for a single seed.
        title: the metric.
        path: the file to write.
        best: row and column of the best point, which gets a frame.
    """
    cells, deviations = np.asarray(mean, np.float64), np.asarray(sd, np.float64)
    rows, columns = cells.shape
    figure, (axis,) = panels(max(4.2, 1.8 + 0.95 * columns), max(2.4, 1.3 + 0.55 * rows))
    image = axis.imshow(cells, cmap=SEQUENTIAL, aspect="auto")
    figure.colorbar(image, ax=axis, shrink=0.9).ax.tick_params(labelsize=8)
    low, high = np.nanmin(cells), np.nanmax(cells)
    decimals = 2 if high - low < 1 else 1
    for (row, column), value in np.ndenumerate(cells):
        text = "–" if np.isnan(value) else f"{value:.{decimals}f}"
        if not np.isnan(deviations[row, column]):
            text += f"\n± {deviations[row, column]:.{decimals}f}"
        is_dark = value < low + 0.6 * (high - low)
        color = "#333333" if np.isnan(value) else "white" if is_dark else "black"
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    axis.set_yticks(range(rows), list(map(_short, values[0])))
    axis.set_xticks(range(columns), list(map(_short, values[1])))
    if best is not None:
        _frame(axis, *best)
    axis.set_ylabel(settings[0], fontsize=9)
    axis.set_xlabel(settings[1], fontsize=9)
    axis.set_title(title, fontsize=10)
    axis.grid(visible=False)
    write_figure(figure, path)


def _frame(axis: Any, row: int, column: int) -> None:
    """Frames a cell of a heat map."""
    x, y = np.array([0, 1, 1, 0, 0]) - 0.5, np.array([0, 0, 1, 1, 0]) - 0.5
    axis.plot(column + 0.97 * x, row + 0.94 * y, color=ORANGE, linewidth=2.5, solid_joinstyle="miter")


def plot_rate_distortion(setting: str, curves: Sequence[Tradeoff], path: Path) -> None:
    """Plots the distortion of models over their rate, with dashed lines of equal ELBO.

    Args:
        setting: the setting that the labels of the models are values of.
        curves: models of the same architecture, ordered by the weight of the rate; at most `MAX_LINES`.
        path: the file to write.
    """
    figure, (axis,) = panels(6.2, 4.4)
    for curve, color in zip(curves, COLORS, strict=False):
        rate, distortion = np.asarray(curve.rate, np.float64), np.asarray(curve.distortion, np.float64)
        bars = [np.nan_to_num(np.asarray(sd, np.float64)) for sd in (curve.distortion_sd, curve.rate_sd)]
        style = {"marker": "o", "markersize": 4, "color": color, "capsize": 2, "elinewidth": 1}
        axis.errorbar(rate, distortion, *bars, label=curve.name or None, **style)
        for x, y, label in zip(rate, distortion, curve.labels, strict=True):
            axis.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7, color=color)
    axis.margins(0.1)
    _equal_elbos(axis)
    axis.set(xlabel="rate, nats", ylabel="distortion, nats")
    axis.set_title(f"rate and distortion by {setting}", fontsize=10)
    if len(axis.get_legend_handles_labels()[1]) > 1:
        legend_above(figure, axis, columns=4)
    write_figure(figure, path)


def _equal_elbos(axis: Any) -> None:
    """Draws lines on which ELBO = -(rate + distortion) is a round number; the axes keep their limits."""
    load_matplotlib()
    from matplotlib.ticker import MaxNLocator

    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    text = {"fontsize": 7, "color": GREY, "ha": "left", "va": "center", "bbox": background, "zorder": 1}
    for cost in MaxNLocator(5).tick_values(left + bottom, right + top):
        start, end = max(left, cost - top), min(right, cost - bottom)  # where the line enters and leaves the axes
        if end - start < 0.2 * (right - left):
            continue
        axis.plot([start, end], [cost - start, cost - end], color=GREY, linestyle="--", linewidth=0.8, zorder=0)
        x = start + 0.03 * (right - left)
        axis.text(x, cost - x, f"ELBO {-cost:g}", **text)
    axis.set(xlim=(left, right), ylim=(bottom, top))


def plot_search_history(
    values: ArrayLike,
    path: Path,
    title: str,
    better: Literal["higher", "lower"],
    pruned: ArrayLike | None = None,
) -> None:
    """Plots the values of a search's trials in their order, and the best value so far.

    Args:
        values: `(T,)` values of the trials; NaN for trials without one.
        path: the file to write.
        title: the metric.
        better: which of two values is the better one.
        pruned: `(T,)` whether a trial was stopped early; its value is the last one that it reported.
    """
    y = np.asarray(values, np.float64)
    early = np.zeros(len(y), bool) if pruned is None else np.asarray(pruned, bool)
    number, whole = np.arange(len(y)), np.isfinite(y) & ~early
    worst = -np.inf if better == "higher" else np.inf
    best = (np.maximum if better == "higher" else np.minimum).accumulate(np.where(whole, y, worst))
    low, high = _typical_range(y[np.isfinite(y)])
    figure, (axis,) = panels(6.2, 3.6)
    groups = (("trial", whole, "o", BLUE), ("pruned early", early & np.isfinite(y), "x", GREY))
    for label, chosen, marker, color in groups:
        if chosen.any():
            shown = y[chosen].clip(low, high)
            axis.scatter(number[chosen], shown, s=18, marker=marker, color=color, label=label, zorder=3)
    known = np.isfinite(best)
    axis.step(number[known], best[known], where="post", color=ORANGE, label="best so far", zorder=2)
    outside = int((np.isfinite(y) & ((y < low) | (y > high))).sum())
    beyond = f"; {outside} beyond the edge" if outside else ""
    axis.set_xlabel(f"trial{beyond}", fontsize=9)
    axis.set_ylabel(title, fontsize=9)
    margin = 0.05 * (high - low) or 1.0
    axis.set_ylim(low - margin, high + margin)
    _whole_numbers(axis)
    legend_above(figure, axis, columns=3)
    write_figure(figure, path)


def _whole_numbers(axis: Any) -> None:
    load_matplotlib()
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _typical_range(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of values without those that would dwarf all others."""
    if not len(values):
        return 0.0, 1.0
    quarter, middle, three = np.quantile(values, (0.25, 0.5, 0.75))
    reach = OUTLIER_RANGE * (three - quarter) or np.inf
    inside = values[np.abs(values - middle) <= reach]
    return float(inside.min()), float(inside.max())


def plot_importance(names: Sequence[str], importance: ArrayLike, path: Path, title: str) -> None:
    """Plots how much each setting of a search matters for a metric, the most important first.

    Args:
        names: the settings.
        importance: `(D,)` their importances, which add up to 1.
        path: the file to write.
        title: the metric.
    """
    shares = np.asarray(importance, np.float64)
    order = (-shares).argsort(kind="stable")[:MAX_BARS]
    figure, (axis,) = panels(6.2, max(2.0, 1.0 + 0.3 * len(order)))
    axis.barh(range(len(order)), shares[order], color=BLUE, height=min(0.7, len(order) / 6))
    for row, number in enumerate(order):
        axis.text(shares[number], row, f" {shares[number]:.0%}", va="center", fontsize=8)
    axis.set_yticks(range(len(order)), [_short(names[number]) for number in order])
    axis.invert_yaxis()
    axis.set_xlim(0, 1.12 * max(float(shares.max()), 1e-9))
    axis.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axis.set_title(f"importance of settings for {title}", fontsize=10)
    axis.grid(visible=False, axis="y")
    write_figure(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"
