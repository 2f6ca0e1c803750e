"""Score histograms and ROC curve of two data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae_train.plotting.arrays import Array, to_float_array
from vae_train.plotting.png import write_figure

Scores = NDArray[np.float64]

HISTOGRAM_BINS = 60

TAIL_FRACTION = 0.002
"""Share of a data set's scores at either end that may lie beyond the histogram's axis."""


def plot_roc(
    scores: tuple[Array, Array],
    rates: tuple[Array, Array],
    names: tuple[str, str],
    path: Path,
    title: str,
    score: str = "score",
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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.8), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.45, 1))
    _histograms(left, (to_float_array(scores[0]), to_float_array(scores[1])), names)
    left.set_xlabel(score, fontsize=9)
    right.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
    right.plot(*map(to_float_array, rates), color="C3", linewidth=1.6, clip_on=False, zorder=3)  # above the frame
    right.set_title(title, fontsize=10)
    right.set_xlabel(f"{names[0]} called anomalous", fontsize=9)
    right.set_ylabel(f"{names[1]} called anomalous", fontsize=9)
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axis in (left, right):
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    write_figure(figure, path)


def _histograms(axis: Any, scores: tuple[Scores, Scores], names: tuple[str, str]) -> None:
    """Plots two densities over the same bins; the outermost bins include the scores beyond them."""
    edges = _edges(scores)
    for values, name, colour in zip(scores, names, ("C0", "C1"), strict=True):
        inside = values.clip(edges[0], edges[-1])
        heights = np.histogram(inside, edges)[0] / (len(values) * np.diff(edges))
        axis.stairs(heights, edges, fill=True, color=colour, alpha=0.4, label=f"{name} ({len(values):,})")
        axis.stairs(heights, edges, color=colour, linewidth=1.2)
    axis.set_ylabel("density", fontsize=9)
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)


def _edges(scores: tuple[Scores, Scores]) -> Scores:
    """Edges `(HISTOGRAM_BINS + 1,)` of bins that span nearly all finite scores."""
    finite = [values[np.isfinite(values)] for values in scores]
    ends = [np.quantile(values, (TAIL_FRACTION, 1 - TAIL_FRACTION)) for values in finite if len(values)]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0.0, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a single value, which is centred
        width = 0.5 * max(1.0, abs(low))
        low, high = low - width, high + width
    return np.linspace(low, high, HISTOGRAM_BINS + 1)
