"""Pictures of an evaluation: the estimate of -log p(x) over the number of draws, and what each latent unit does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vae_train.evaluation.latents import ACTIVE, Usage


def curve(points: list[dict[str, Any]], elbo: dict[str, Any], path: Path) -> None:
    """Draws -log p(x) over the number of draws, beside the -ELBO.

    Args:
        points: "draws", "value" and "se" of every point.
        elbo: "value" of the ELBO.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.add_subplot()
    draws, values = [p["draws"] for p in points], [p["value"] for p in points]
    axis.plot(draws, values, marker="o", markersize=4, color="C0", label="importance-weighted")
    axis.fill_between(
        draws, [p["value"] - p["se"] for p in points], [p["value"] + p["se"] for p in points], alpha=0.2, color="C0"
    )
    axis.axhline(-elbo["value"], color="C1", linestyle="--", label="-ELBO")
    axis.set(xscale="log", xlabel="K, draws of z per image", ylabel="-log p(x), nats")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(str(path))


def units(found: Usage, path: Path) -> None:
    """Draws KL and variance of the posterior mean of every unit, the most used first.

    Args:
        found: what each unit does.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = found.variance.argsort(descending=True).cpu()
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    place = range(len(order))
    axes[0].bar(place, found.variance.cpu()[order].clamp(min=1e-8).tolist(), color="C0", width=0.8)
    axes[0].axhline(ACTIVE, color="C3", linewidth=1, label=f"active above {ACTIVE}")
    axes[0].set(yscale="log", title="variance of the posterior mean", xlabel="unit, most used first")
    axes[0].legend(fontsize=8)
    if found.kl is not None:
        axes[1].bar(place, found.kl.cpu()[order].tolist(), color="C1", width=0.8)
    axes[1].set(title="KL(q(z | x) || p(z)), nats", xlabel="unit, in the same order")
    for axis in axes:
        axis.grid(alpha=0.25)
    FigureCanvasAgg(figure).print_png(str(path))
