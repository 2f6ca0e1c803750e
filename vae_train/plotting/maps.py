"""Scatter plots of encodings in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vae_train.plotting.arrays import Array, to_float_array
from vae_train.plotting.png import write_figure

MAX_NAMED_CLASSES = 20
"""Classes that colours can tell apart; more are shown by a continuous colour bar."""

PANEL_INCHES, LEGEND_INCHES = 4.6, 1.4

ROUNDING_INCHES = 1e-6
"""Before 3.11 matplotlib truncates pixels, and 100 times 4.6 is slightly less than 460."""

MAX_NAME_LENGTH = 18


def plot_maps(maps: Sequence[tuple[str, Array]], labels: Array | None, names: Sequence[str] | None, path: Path) -> None:
    """Plots several two-dimensional maps of the same points side by side.

    Args:
        maps: a title and `(N, 2)` coordinates each.
        labels: `(N,)` int, which decide the colours: up to `MAX_NAMED_CLASSES` get a legend, more a colour bar.
        names: names of the labels 0, 1, …
        path: the PNG to write, `PANEL_INCHES` high with 100 pixels per inch.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    y = None if labels is None else np.asarray(torch.as_tensor(labels).cpu())
    width = PANEL_INCHES * len(maps) + (0 if y is None else LEGEND_INCHES)
    size = (width + ROUNDING_INCHES, PANEL_INCHES + ROUNDING_INCHES)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    colours, scale = _colours(y)
    for axis, (title, points) in zip(axes, maps, strict=True):
        xy = to_float_array(points)
        order = np.random.default_rng(0).permutation(len(xy))  # or the last class would cover the others
        shades = {"color": "0.35"} if colours is None else {"c": colours[order], **scale}
        area = float(np.clip(12_000 / max(1, len(xy)), 4, 36))
        axis.scatter(*xy[order].T, s=area, alpha=0.85, linewidths=0, **shades)
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.set_aspect("equal", "datalim")  # both directions of a map have one unit
    if scale:
        opaque = ScalarMappable(Normalize(scale["vmin"], scale["vmax"]), scale["cmap"])  # without the dots' alpha
        bar = figure.colorbar(opaque, ax=axes, fraction=LEGEND_INCHES / width, pad=0.02, aspect=30)
        bar.ax.tick_params(labelsize=8)
    elif y is not None:
        _legend(figure, y, names)
    write_figure(figure, path)


def _colours(labels: NDArray[Any] | None) -> tuple[NDArray[Any] | None, dict[str, Any]]:
    """Returns a colour for every point, or a number with the scale that turns it into a colour."""
    if labels is None:
        return None, {}
    classes, place = np.unique(labels, return_inverse=True)
    if len(classes) > MAX_NAMED_CLASSES:
        return labels, {"cmap": "turbo", "vmin": classes[0], "vmax": classes[-1]}
    return _palette(len(classes))[place], {}


def _palette(count: int) -> NDArray[np.float64]:
    """Returns `(count, 4)` colours for up to `MAX_NAMED_CLASSES` classes, the ten strong ones first."""
    from matplotlib import colormaps

    pairs = colormaps["tab20"](np.arange(20))
    return np.concatenate([pairs[::2], pairs[1::2]])[:count]


def _legend(figure: Any, labels: NDArray[Any], names: Sequence[str] | None) -> None:
    from matplotlib.lines import Line2D

    classes = np.unique(labels).tolist()
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=6, color=colour, label=label_name(label, names))
        for label, colour in zip(classes, _palette(len(classes)), strict=True)
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)


def label_name(label: int, names: Sequence[str] | None) -> str:
    """Returns the name of a label on one line, cut to the width of a legend."""
    name = names[label] if names is not None and 0 <= label < len(names) else str(label)
    name = " ".join(name.split())
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
