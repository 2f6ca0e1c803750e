"""Bar charts of what each latent dimension does."""

from __future__ import annotations

from pathlib import Path

from vae_train.plotting.arrays import Array, to_float_array
from vae_train.plotting.png import write_figure


def plot_latent_activity(variance: Array, kl: Array | None, threshold: float, path: Path) -> None:
    """Plots variance of the posterior mean and KL of every latent dimension, the most active first.

    Args:
        variance: `(D,)` variance of the posterior mean over images.
        kl: `(D,)` KL(q(z_d | x) || p(z_d)) in nats, the mean over images; None without a closed form.
        threshold: variance above which a dimension counts as active.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure

    heights = to_float_array(variance)
    order = (-heights).argsort(kind="stable")
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    places = range(len(order))
    axes[0].bar(places, heights[order].clip(min=1e-8), color="C0", width=0.8)
    axes[0].axhline(threshold, color="C3", linewidth=1, label=f"active above {threshold}")
    axes[0].set(yscale="log", title="variance of the posterior mean", xlabel="latent dimension, most active first")
    axes[0].legend(fontsize=8)
    if kl is not None:
        axes[1].bar(places, to_float_array(kl)[order], color="C1", width=0.8)
    axes[1].set(title="KL(q(z | x) || p(z)), nats", xlabel="latent dimension, in the same order")
    for axis in axes:
        axis.grid(alpha=0.25)
    write_figure(figure, path)
