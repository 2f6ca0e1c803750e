"""Charts: training curves, log-likelihood, latent activity, out-of-distribution scores and pixel values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vae_train.plotting.png import panels, write_figure

PANELS = (
    ("loss", "optimised loss (nats)"),
    ("elbo", "ELBO, beta = 1 (nats)"),
    ("distortion", "distortion (nats)"),
    ("rate", "rate (nats)"),
)

MARGINS = {"left": 0.055, "right": 0.99, "bottom": 0.15, "top": 0.89, "wspace": 0.28}
"""Wide enough for numbers of seven digits. Measuring the margins would render the figure three times."""

SETTLED_MIN_VALUES = 20
"""Values from which on the first twentieth, which dwarfs the rest, does not decide the axis limits."""

HISTOGRAM_BINS = 60

TAIL_FRACTION = 0.002
"""Share of a data set's scores at either end that may lie beyond the histogram's axis."""


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots loss, ELBO, distortion and rate of every split over steps.

    Args:
        rows: a run's metrics, with "step", "split", "scope" ("step" or "epoch") and values in nats.
        path: the PNG to write.
    """
    write_figure(curves_figure(rows), path)


def curves_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Builds the matplotlib figure that `plot_curves` writes."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure, axes = panels(13, 3.4, len(PANELS), gridspec_kw=MARGINS)
    for axis, (name, title) in zip(axes, PANELS, strict=True):
        for split, scope, style in (
            ("train", "step", {"color": "C0", "alpha": 0.3, "linewidth": 0.8}),
            ("train", "epoch", {"color": "C0", "label": "train, epoch mean"}),
            ("valid", "epoch", {"color": "C1", "label": "valid"}),
        ):
            points = [
                (row["step"], row[name])
                for row in rows
                if row["split"] == split and row["scope"] == scope and row.get(name) is not None
            ]
            if points:
                marker = "o" if scope == "epoch" and len(points) < 12 else None
                axis.plot(*zip(*points, strict=True), marker=marker, markersize=3, **style)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 150k: six digits would run into each other
        _limit(axis, [row[name] for row in rows if row.get(name) is not None])
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize=8)
    return figure


def _limit(axis: Any, values: list[float]) -> None:
    """Sets the limits by all values but those of the first steps."""
    if len(values) < SETTLED_MIN_VALUES:
        return
    settled = sorted(values[len(values) // SETTLED_MIN_VALUES :])
    low, high = settled[0], settled[-1]
    margin = 0.05 * (high - low) or 1.0
    axis.set_ylim(low - margin, high + margin)


def plot_nll_curve(
    num_samples: Sequence[int], values: Sequence[float], errors: Sequence[float], elbo: float, path: Path
) -> None:
    """Plots -log p(x) over the number of importance samples, beside -ELBO.

    Args:
        num_samples: K of every point.
        values: -log p(x) of every point, nats per image.
        errors: standard errors of the values.
        elbo: nats per image.
        path: the PNG to write.
    """
    figure, (axis,) = panels(5, 3.2)
    axis.plot(num_samples, values, marker="o", markersize=4, color="C0", label="importance-weighted")
    low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
    axis.fill_between(num_samples, low, high, alpha=0.2, color="C0")
    axis.axhline(-elbo, color="C1", linestyle="--", label="-ELBO")
    axis.set(xscale="log", xlabel="K, importance samples per image", ylabel="-log p(x), nats")
    axis.legend(fontsize=8)
    write_figure(figure, path)


def plot_latent_activity(variance: ArrayLike, kl: ArrayLike | None, threshold: float, path: Path) -> None:
    """Plots variance of the posterior mean and KL of every latent dimension, the most active first.

    Args:
        variance: `(D,)` variance of the posterior mean over images, relative to the prior's.
        kl: `(D,)` KL(q(z_d | x) || p(z_d)) in nats, the mean over images; None without a closed form.
        threshold: variance above which a dimension counts as active.
        path: the PNG to write.
    """
    heights = np.asarray(variance)
    order = (-heights).argsort(kind="stable")
    figure, axes = panels(9, 3, 2)
    places = range(len(order))
    axes[0].bar(places, heights[order].clip(min=1e-8), color="C0", width=0.8)
    axes[0].axhline(threshold, color="C3", linewidth=1, label=f"active above {threshold}")
    axes[0].set(yscale="log", title="variance of the mean / of the prior", xlabel="latent dimension, most active first")
    axes[0].legend(fontsize=8)
    if kl is not None:
        axes[1].bar(places, np.asarray(kl)[order], color="C1", width=0.8)
    axes[1].set(title="KL(q(z | x) || p(z)), nats", xlabel="latent dimension, in the same order")
    write_figure(figure, path)


def plot_roc(
    scores: Sequence[ArrayLike], rates: Sequence[ArrayLike], names: Sequence[str], path: Path, title: str, score: str
) -> None:
    """Plots histograms of the scores of two data sets, and the ROC curve.

    Args:
        scores: `(N,)` of normal and `(M,)` of anomalous data.
        rates: `(T,)` false positive and true positive rates.
        names: of the normal and the anomalous data.
        path: the PNG to write, 960 × 380 pixels.
        title: of the ROC curve.
        score: label of the scores' axis.
    """
    figure, (left, right) = panels(9.6, 3.8, 2, width_ratios=(1.45, 1))
    _histograms(left, [np.asarray(values, np.float64) for values in scores], names)
    left.set_xlabel(score, fontsize=9)
    right.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
    right.plot(*rates, color="C3", linewidth=1.6, clip_on=False, zorder=3)  # above the frame
    right.set_title(title, fontsize=10)
    right.set_xlabel(f"{names[0]} called anomalous", fontsize=9)
    right.set_ylabel(f"{names[1]} called anomalous", fontsize=9)
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axis in (left, right):
        axis.tick_params(labelsize=8)
    write_figure(figure, path)


def plot_pixel_histogram(counts: Tensor, path: Path) -> None:
    """Plots how often each pixel value occurs in every channel.

    Args:
        counts: `(C, bins)` counts over equal bins of [0, 1].
        path: the PNG to write.
    """
    channels, bins = counts.shape
    figure, (axis,) = panels(6, 3)
    colors = {1: ("0.3",), 3: ("C3", "C2", "C0")}.get(channels) or [f"C{channel % 10}" for channel in range(channels)]
    for channel, row in enumerate((counts / counts.sum(1, keepdim=True)).tolist()):
        edges = [i / bins for i in range(bins + 1)]
        axis.stairs(row, edges, color=colors[channel], fill=channels == 1)
    axis.set(yscale="log", xlabel="pixel value", ylabel="share of the pixels")
    write_figure(figure, path)


def _histograms(axis: Any, scores: list[NDArray[np.float64]], names: Sequence[str]) -> None:
    """Plots two densities over the same bins; the outermost bins include the scores beyond them."""
    edges = _edges(scores)
    for values, name, colour in zip(scores, names, ("C0", "C1"), strict=True):
        inside, label = values.clip(edges[0], edges[-1]), f"{name} ({len(values):,})"
        axis.hist(inside, edges, density=True, histtype="stepfilled", color=colour, alpha=0.4, label=label)
        axis.hist(inside, edges, density=True, histtype="step", color=colour, linewidth=1.2)
    axis.set_ylabel("density", fontsize=9)
    axis.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    axis.legend(fontsize=8)


def _edges(scores: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Edges `(HISTOGRAM_BINS + 1,)` of bins that span nearly all finite scores."""
    finite = [values[np.isfinite(values)] for values in scores]
    ends = [np.quantile(values, (TAIL_FRACTION, 1 - TAIL_FRACTION)) for values in finite if len(values)]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0.0, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a single value, which is centred
        width = 0.5 * max(1.0, abs(low))
        low, high = low - width, high + width
    return np.linspace(low, high, HISTOGRAM_BINS + 1)
