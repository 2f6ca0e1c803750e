"""Charts: training curves, log-likelihood, latent activity, out-of-distribution scores and pixel values."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vae_train.plotting.grid import MAX_CHANNELS
from vae_train.plotting.lazy import load_matplotlib
from vae_train.plotting.palette import BLUE, CHANNEL_COLORS, COLORS, GREY, ORANGE, RED
from vae_train.plotting.png import legend_above, panels, write_figure

CURVES = {
    "elbo": "ELBO (nats)",
    "rate": "rate (nats)",
    "distortion": "distortion (nats)",
    "bits_per_dim": "bits per dimension",
    "loss": "training objective (nats)",
    "beta": "beta, weight of the rate",
    "lr": "learning rate",
}
"""Metrics with a panel, and its title. Metrics without values have none."""

SCHEDULED = ("beta", "lr")
"""Settings that follow a schedule; their axis starts at 0."""

MAX_CURVES_IN_ROW = 4

SETTLED_MIN_VALUES = 20
"""Number of values above which the first twentieth, which dwarfs the rest, does not affect the axis limits."""

HISTOGRAM_BINS = 60

TAIL_FRACTION = 0.002
"""Fraction of a data set's scores at either end that may exceed the axis of the histogram."""

MAX_HORIZONTAL_NAME = 3
"""Longest class name, in characters, that is written horizontally."""

MAX_BARS = 64
"""Maximal number of latent dimensions in a bar chart."""

MAX_BARS_BESIDE = 32
"""Number of latent dimensions above which the charts are stacked, so that the chart fits a page."""


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots metrics of training and validation, beta and the learning rate over steps.

    Args:
        rows: a run's metrics, with "step", "split", "scope" ("step" or "epoch") and values.
        path: the file to write.
    """
    write_figure(curves_figure(rows), path)


def curves_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Builds the matplotlib figure that `plot_curves` writes."""
    load_matplotlib()
    from matplotlib.ticker import EngFormatter, MaxNLocator

    names = [name for name in CURVES if any(row.get(name) is not None for row in rows)] or ["elbo"]
    lines = 1 if len(names) <= MAX_CURVES_IN_ROW else 2
    columns, height = math.ceil(len(names) / lines), 0.6 + 3.0 * lines
    # Fixed margins, wide enough for seven digits, since an automatic layout would render the figure three times.
    margins = {"left": 0.055, "right": 0.99, "bottom": 0.5 / height, "top": 1 - 0.7 / height, "wspace": 0.28}
    scopes = [row["scope"] for row in rows if row["split"] == "train"]
    if scopes.count("step") <= scopes.count("epoch"):  # rows of steps would add no detail
        rows = [row for row in rows if row["scope"] == "epoch"]
    figure, axes = panels(13, height, columns, lines, gridspec_kw=margins | {"hspace": 0.42})
    for axis, name in zip(axes, names, strict=False):
        _plot_curve(axis, rows, name)
        axis.set_title(CURVES[name], fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 150k, since six digits would overlap
    for axis in axes[len(names) :]:
        axis.remove()
    if handles := axes[0].get_legend_handles_labels()[0]:
        figure.legend(handles=handles, loc="upper left", ncols=len(handles), fontsize=9, frameon=False)
    return figure


def _plot_curve(axis: Any, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Plots a metric of training steps, training epochs and validations."""
    for split, scope, style in (
        ("train", "step", {"color": BLUE, "alpha": 0.35, "linewidth": 0.8, "label": "train, mean of recent steps"}),
        ("train", "epoch", {"color": BLUE, "label": "train, mean of the epoch"}),
        ("valid", "epoch", {"color": ORANGE, "label": "valid"}),
    ):
        points = [
            (row["step"], row[name])
            for row in rows
            if row["split"] == split and row["scope"] == scope and row.get(name) is not None
        ]
        if points and not (name in SCHEDULED and split == "valid"):
            marker = "o" if scope == "epoch" and len(points) < 12 else None
            axis.plot(*zip(*points, strict=True), marker=marker, markersize=3, **style)
    if name in SCHEDULED:
        axis.set_ylim(bottom=0)
    else:
        _limit(axis, [row[name] for row in rows if row.get(name) is not None])


def _limit(axis: Any, values: list[float]) -> None:
    """Sets the axis limits, ignoring the values of the first steps."""
    if len(values) < SETTLED_MIN_VALUES:
        return
    settled = sorted(values[len(values) // SETTLED_MIN_VALUES :])
    low, high = settled[0], settled[-1]
    margin = 0.05 * (high - low) or 1.0
    axis.set_ylim(low - margin, high + margin)


def plot_nll_curve(
    num_samples: Sequence[int], values: Sequence[float], errors: Sequence[float], elbo: float, path: Path
) -> None:
    """Plots -log p(x) over the number of importance samples, with -ELBO for comparison.

    Args:
        num_samples: K of every point.
        values: -log p(x) of every point, nats per image.
        errors: standard errors of the values.
        elbo: nats per image.
        path: the file to write.
    """
    figure, (axis,) = panels(5, 3.6)
    axis.plot(num_samples, values, marker="o", markersize=4, color=BLUE, label="importance-weighted ± standard error")
    low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
    axis.fill_between(num_samples, low, high, alpha=0.2, color=BLUE, linewidth=0)
    axis.axhline(-elbo, color=ORANGE, linestyle="--", label="-ELBO")
    axis.set(xscale="log", xticks=num_samples, xticklabels=[f"{k:,}" for k in num_samples])
    axis.minorticks_off()
    axis.set(xlabel="K, importance samples per image", ylabel="-log p(x), nats")
    legend_above(figure, axis)
    write_figure(figure, path)


def plot_latent_activity(variance: ArrayLike, kl: ArrayLike | None, threshold: float, path: Path) -> None:
    """Plots the variance of the posterior mean and the KL of every latent dimension, the most active first.

    Args:
        variance: `(D,)` variance of the posterior mean over images, relative to the prior's.
        kl: `(D,)` mean KL(q(z_d | x) || p(z_d)) over images in nats; None without a closed form.
        threshold: variance above which a dimension counts as active.
        path: the file to write.
    """
    heights = np.asarray(variance)
    order = (-heights).argsort(kind="stable")[:MAX_BARS]
    which = "most active first" + (f" ({MAX_BARS} of {len(heights)})" if len(heights) > MAX_BARS else "")
    count = 1 if kl is None else 2
    if len(order) > MAX_BARS_BESIDE:
        figure, axes = panels(0.2 * len(order), 2.8 * count, rows=count)
    else:
        figure, axes = panels(max(9.0, 0.36 * len(order)), 3.4, columns=count)
    width = min(0.8, len(order) / 8)
    axes[0].axhline(threshold, color=RED, linewidth=1, label=f"active above {threshold}")
    axes[0].bar(range(len(order)), heights[order].clip(min=1e-8), color=BLUE, width=width)
    axes[0].set_yscale("log")
    axes[0].set_title("variance of the posterior mean / of the prior", fontsize=10)
    if kl is not None:
        axes[1].bar(range(len(order)), np.asarray(kl)[order], color=ORANGE, width=width)
        axes[1].set_title("KL(q(z | x) || p(z)), nats", fontsize=10)
    for axis in axes:
        axis.set_xticks(range(len(order)), [str(1 + number) for number in order])
        axis.set_xlim(-0.6, len(order) - 0.4)
        axis.tick_params("x", labelsize=8 if len(order) <= MAX_BARS // 2 else 6, length=0)
        axis.set_xlabel(f"latent dimension, {which}", fontsize=9)
        axis.grid(visible=False, axis="x")
    legend_above(figure, axes[0])
    write_figure(figure, path)


def plot_layer_rates(rates: Sequence[float], threshold: float, path: Path) -> None:
    """Plots the rate of every stochastic layer.

    Args:
        rates: mean rates in nats, the topmost layer first.
        threshold: rate below which a layer carries no information.
        path: the file to write.
    """
    figure, (axis,) = panels(max(4.5, min(0.3 * len(rates), 16.0)), 3.0)
    axis.axhline(threshold, color=RED, linewidth=1, label=f"unused below {threshold:g}")
    axis.bar(range(len(rates)), rates, color=ORANGE, width=min(0.8, len(rates) / 8))
    shown = range(0, len(rates), math.ceil(len(rates) / MAX_BARS))
    axis.set_xticks(shown, [str(1 + number) for number in shown])
    axis.set_xlim(-0.6, len(rates) - 0.4)
    axis.set(xlabel="layer, topmost first", ylabel="rate, nats")
    axis.grid(visible=False, axis="x")
    legend_above(figure, axis)
    write_figure(figure, path)


def plot_roc(
    scores: Sequence[ArrayLike], rates: Sequence[ArrayLike], names: Sequence[str], path: Path, title: str, score: str
) -> None:
    """Plots histograms of the scores of two data sets, and the ROC curve.

    Args:
        scores: `(N,)` of normal and `(M,)` of anomalous data.
        rates: `(T,)` false positive and true positive rates.
        names: names of the normal and the anomalous data.
        path: the file to write, 960 × 380 pixels.
        title: title of the ROC curve.
        score: label of the scores' axis.
    """
    figure, (left, right) = panels(9.6, 3.8, 2, width_ratios=(1.45, 1))
    _histograms(left, [np.asarray(values, np.float64) for values in scores], names)
    left.set_xlabel(score, fontsize=9)
    right.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    right.plot(*rates, color=RED, linewidth=1.6, clip_on=False, zorder=3)  # above the frame
    right.set_title(title, fontsize=10)
    right.set_xlabel(f"false positive rate ({names[0]})", fontsize=9)
    right.set_ylabel(f"true positive rate ({names[1]})", fontsize=9)
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    legend_above(figure, left)
    write_figure(figure, path)


def plot_pixel_histogram(counts: Tensor, path: Path) -> None:
    """Plots a histogram of pixel values for every channel.

    Args:
        counts: `(C, bins)` counts over equal bins of [0, 1].
        path: the file to write.
    """
    load_matplotlib()
    from matplotlib.ticker import LogLocator

    channels, bins = counts.shape
    figure, (axis,) = panels(6, 3.4)
    names = ("red", "green", "blue") if channels == 3 else [f"channel {1 + number}" for number in range(channels)]
    colors = CHANNEL_COLORS.get(channels) or [COLORS[number % len(COLORS)] for number in range(channels)]
    edges = np.linspace(0, 1, bins + 1)
    fractions = counts / counts.sum(1, keepdim=True)
    for row, name, color in zip(fractions.tolist(), names, colors, strict=True):
        axis.stairs(row, edges, color=color, fill=channels == 1, label=name, linewidth=1.2)
    axis.set(yscale="log", xlabel="pixel value", ylabel="fraction of pixels, log scale", xlim=(0, 1))
    is_narrow = fractions.max() < 100 * fractions[fractions > 0].min()  # powers of ten would be too few ticks
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_narrow else (1,)))
    axis.yaxis.set_major_formatter(lambda fraction, _: f"{100 * fraction:g}%")
    axis.minorticks_off()
    if 1 < channels <= MAX_CHANNELS:
        legend_above(figure, axis, columns=channels)
    write_figure(figure, path)


def plot_counts(names: Sequence[str], counts: Mapping[str, Sequence[int]], path: Path) -> None:
    """Plots the number of images per class and split.

    Args:
        names: names of the classes.
        counts: split -> number of images of each class.
        path: the file to write.
    """
    figure, (axis,) = panels(max(6.0, min(0.3 * len(names), 16.0)), 3.4)
    width = 0.8 / len(counts)
    for number, (split, values) in enumerate(counts.items()):
        axis.bar(np.arange(len(names)) + (number + 0.5) * width - 0.4, values, width, label=split)
    shown = range(0, len(names), math.ceil(len(names) / MAX_BARS))
    slanted = max(map(len, names)) > MAX_HORIZONTAL_NAME
    axis.set_xticks(shown, [names[i] for i in shown], rotation=90 if slanted else 0)
    axis.set(xlabel="class", ylabel="images")
    axis.grid(visible=False, axis="x")
    legend_above(figure, axis, columns=len(counts))
    write_figure(figure, path)


def _histograms(axis: Any, scores: list[NDArray[np.float64]], names: Sequence[str]) -> None:
    """Plots two densities with the same bins; the outermost bins include all scores beyond them."""
    edges = _edges(scores)
    for values, name, color in zip(scores, names, (BLUE, ORANGE), strict=True):
        inside, label = values.clip(edges[0], edges[-1]), f"{name} ({len(values):,})"
        axis.hist(inside, edges, density=True, histtype="stepfilled", color=color, alpha=0.4, label=label)
        axis.hist(inside, edges, density=True, histtype="step", color=color, linewidth=1.2)
    axis.set_ylabel("density", fontsize=9)
    axis.set(xlim=(edges[0], edges[-1]), ylim=(0, None))


def _edges(scores: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Edges `(HISTOGRAM_BINS + 1,)` of bins that cover nearly all finite scores."""
    finite = [values[np.isfinite(values)] for values in scores]
    ends = [np.quantile(values, (TAIL_FRACTION, 1 - TAIL_FRACTION)) for values in finite if len(values)]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0.0, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # centre a single value
        width = 0.5 * max(1.0, abs(low))
        low, high = low - width, high + width
    return np.linspace(low, high, HISTOGRAM_BINS + 1)
