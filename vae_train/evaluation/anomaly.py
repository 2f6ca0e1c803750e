"""How well a score tells two data sets apart: the area under the ROC curve, and its picture.

Scores are any numbers that are higher for what is less normal, -ELBO for one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae_train.evaluation.evidence import Figure
from vae_train.evaluation.maps import Array, floats

Scores = NDArray[np.float64]

BINS = 60
"""Of the histograms."""

TAIL = 0.002
"""Share of a data set's scores at either end that the histograms' axis need not reach."""


def auroc(normal: Array, anomalous: Array) -> Figure:
    """Probability that an anomalous score is above a normal one, where half of it counts if they are equal.

    It is the statistic of Mann and Whitney, and the area under `roc`.

    Args:
        normal: `(N,)` scores.
        anomalous: `(M,)` scores.

    Returns:
        The "value", the numbers of "normal" and "anomalous" scores, and the standard error "se" over both of them, of
        DeLong, DeLong & Clarke-Pearson (1988), equation 6; NaN if one of them is a single score, and 0 if the scores do
        not overlap.

    Raises:
        ValueError: there are no scores, or a score is NaN.
    """
    low, high = _checked(normal), _checked(anomalous)
    above, below = _share_below(low, high), 1 - _share_below(high, low)  # (M,), (N,): what each score wins
    se = math.sqrt(_variance_of_mean(above) + _variance_of_mean(below))
    return {"value": float(above.mean()), "se": se, "normal": len(low), "anomalous": len(high)}


def roc(normal: Array, anomalous: Array) -> tuple[Scores, Scores]:
    """Shares of normal and of anomalous scores that a threshold calls anomalous, for every threshold from high to low.

    Args:
        normal: `(N,)` scores.
        anomalous: `(M,)` scores.

    Returns:
        `(T + 1,)` false positive and true positive rates from 0 to 1, where T is the number of different scores: those
        at or above a threshold are called anomalous.

    Raises:
        ValueError: there are no scores, or a score is NaN.
    """
    low, high = _checked(normal), _checked(anomalous)
    thresholds = np.unique(np.concatenate([low, high]))[::-1]
    false, true = (1 - np.searchsorted(np.sort(part), thresholds) / len(part) for part in (low, high))
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def draw(normal: Array, anomalous: Array, names: tuple[str, str], path: Path, score: str = "score") -> None:
    """Draws histograms of both and the ROC curve.

    Args:
        normal: `(N,)` scores.
        anomalous: `(M,)` scores.
        names: what normal and anomalous scores are of.
        path: the PNG to write, 960 × 380 pixels.
        score: what the scores are, for the axis.

    Raises:
        ValueError: there are no scores, or a score is NaN.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    low, high = _checked(normal), _checked(anomalous)
    figure = Figure(figsize=(9.6, 3.8), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.45, 1))
    _histograms(left, (low, high), names)
    left.set_xlabel(score, fontsize=9)
    area = auroc(low, high)
    spread = "" if math.isnan(area["se"]) else f" ± {area['se']:.3f}"
    right.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
    right.plot(*roc(low, high), color="C3", linewidth=1.6, clip_on=False, zorder=3)  # above the frame
    right.set_title(f"AUROC {area['value']:.3f}{spread}", fontsize=10)
    right.set_xlabel(f"{names[0]} called anomalous", fontsize=9)
    right.set_ylabel(f"{names[1]} called anomalous", fontsize=9)
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axis in (left, right):
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    FigureCanvasAgg(figure).print_png(str(path))


def _histograms(axis: Any, parts: tuple[Scores, Scores], names: tuple[str, str]) -> None:
    """Densities of two data sets over the same bins, of which the outermost hold what lies beyond them too."""
    edges = _edges(parts)
    for part, name, colour in zip(parts, names, ("C0", "C1"), strict=True):
        inside = part.clip(edges[0], edges[-1])
        heights = np.histogram(inside, edges)[0] / (len(part) * np.diff(edges))
        axis.stairs(heights, edges, fill=True, color=colour, alpha=0.4, label=f"{name} ({len(part):,})")
        axis.stairs(heights, edges, color=colour, linewidth=1.2)
    axis.set_ylabel("density", fontsize=9)
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)


def _edges(parts: tuple[Scores, Scores]) -> Scores:
    """`(BINS + 1,)` the edges of bins that hold nearly all finite scores of both data sets."""
    finite = [part[np.isfinite(part)] for part in parts]
    ends = [np.quantile(part, (TAIL, 1 - TAIL)) for part in finite if len(part)]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0.0, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a single value, which gets the middle
        width = 0.5 * max(1.0, abs(low))
        low, high = low - width, high + width
    return np.linspace(low, high, BINS + 1)


def _checked(scores: Array) -> Scores:
    found = floats(scores)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"scores have the shape (N,), not {found.shape}")
    if np.isnan(found).any():
        raise ValueError(f"{np.isnan(found).sum():,} of {len(found):,} scores are NaN")
    return found


def _share_below(reference: Scores, scores: Scores) -> Scores:
    """For each of the scores, the share of the reference that lies below it, with half of what equals it."""
    ordered = np.sort(reference)
    twice = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return twice / (2 * len(reference))


def _variance_of_mean(values: Scores) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan
