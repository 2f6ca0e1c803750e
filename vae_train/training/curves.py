"""Loss curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vae_train.training.loggers import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (("loss", "optimised loss (nats)"), ("elbo", "ELBO, beta = 1 (nats)"), ("distortion", "distortion (nats)"))

MARGINS = {"left": 0.055, "right": 0.99, "bottom": 0.15, "top": 0.89, "wspace": 0.28}
"""Wide enough for numbers of seven digits; to measure what is needed would draw everything three times."""


def plot(rows: list[Row], path: Path) -> None:
    """Draws loss, ELBO, distortion and rate of every split over steps.

    Args:
        rows: a run's metrics.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(draw(rows)).print_png(str(path))


def draw(rows: list[Row]) -> Figure:
    """The picture that `plot` writes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = Figure(figsize=(13, 3.4))
    axes = figure.subplots(1, 4, gridspec_kw=MARGINS)
    panels = (*PANELS, ("rate", "rate (nats)"))
    for axis, (name, title) in zip(axes, panels, strict=True):
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
        axis.grid(alpha=0.25)
        _zoom(axis, [row[name] for row in rows if row.get(name) is not None])
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize=8)
    return figure


def _zoom(axis: object, values: list[float]) -> None:
    """Leaves the first steps, which dwarf everything after them, above or below the picture."""
    if len(values) < 20:
        return
    settled = sorted(values[len(values) // 20 :])
    low, high = settled[0], settled[-1]
    margin = 0.05 * (high - low) or 1.0
    axis.set_ylim(low - margin, high + margin)  # type: ignore[attr-defined]
