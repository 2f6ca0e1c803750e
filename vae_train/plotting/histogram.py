"""Histogram of pixel values."""

from pathlib import Path

from torch import Tensor

from vae_train.plotting.png import panels, write_figure


def plot_pixel_histogram(counts: Tensor, path: Path) -> None:
    """Plots how often each pixel value occurs in every channel.

    Args:
        counts: `(C, bins)` counts over equal bins of [0, 1].
        path: the PNG to write.
    """
    channels, bins = counts.shape
    figure, (axis,) = panels(6, 3)
    colors = ("C3", "C2", "C0") if channels == 3 else ("0.3",)
    for channel, row in enumerate((counts / counts.sum(1, keepdim=True)).tolist()):
        edges = [i / bins for i in range(bins + 1)]
        axis.stairs(row, edges, color=colors[channel % len(colors)], fill=channels == 1)
    axis.set(yscale="log", xlabel="pixel value", ylabel="share of the pixels")
    write_figure(figure, path)
