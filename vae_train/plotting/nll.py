"""Importance-sampling estimates over the number of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vae_train.plotting.png import write_figure


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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.add_subplot()
    axis.plot(num_samples, values, marker="o", markersize=4, color="C0", label="importance-weighted")
    low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
    axis.fill_between(num_samples, low, high, alpha=0.2, color="C0")
    axis.axhline(-elbo, color="C1", linestyle="--", label="-ELBO")
    axis.set(xscale="log", xlabel="K, importance samples per image", ylabel="-log p(x), nats")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    write_figure(figure, path)
