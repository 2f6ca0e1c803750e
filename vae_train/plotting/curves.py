"""Training curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
