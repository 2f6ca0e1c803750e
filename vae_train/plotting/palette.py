"""Colours of all plots, safe for colour-blind people."""

import numpy as np
from numpy.typing import NDArray

from vae_train.plotting.lazy import load_matplotlib

COLORS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
"""Petroff, "Accessible Color Sequences for Data Visualization" (arXiv:2107.02270)."""

BLUE, RED, GREY, ORANGE = (COLORS[number] for number in (0, 2, 3, 6))

CHANNEL_COLORS = {1: (COLORS[8],), 3: (RED, "#2e8540", BLUE)}
"""Number of channels -> colours of the channels of grey and RGB images."""

SEQUENTIAL = "viridis"
"""Name of the colour map for numbers."""

MAX_COLORS = 2 * len(COLORS)
"""Maximal number of classes with distinct colours."""


def class_colors(count: int) -> NDArray[np.float64]:
    """Returns `(count, 4)` colours for up to `MAX_COLORS` classes: the palette, then a darker one."""
    load_matplotlib()
    from matplotlib.colors import to_rgba_array

    bright = to_rgba_array(COLORS)
    return np.concatenate([bright, bright * (0.5, 0.5, 0.5, 1.0)])[:count]
