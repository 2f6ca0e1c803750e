"""Writes images and matplotlib figures to files."""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vae_train.plotting.lazy import load_matplotlib
from vae_train.plotting.palette import COLORS
from vae_train.util.files import replacing

PlotFormat = Literal["png", "pdf", "svg"]
"""File formats of matplotlib figures."""

VECTOR_OPTIONS: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "vae_train"}
"""TrueType fonts, which publishers require, text that can be searched, and the same file for the same figure."""


def encode_png(image: Tensor) -> bytes:
    """Encodes an image `(C, height, width)` in [0, 1] as the bytes of a PNG."""
    file = BytesIO()
    # Level 1 takes a third of the default level's time for an eighth more bytes.
    to_pil(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def write_png(path: Path, image: Tensor) -> None:
    """Writes an image `(C, height, width)` in [0, 1] as a PNG."""
    with replacing(path, sync=False) as file:
        file.write(encode_png(image))


def to_pil(image: Tensor) -> Any:
    """Converts an image `(1 or 3, height, width)` in [0, 1] to a PIL image."""
    from PIL import Image

    levels = (image * 255).round().to(torch.uint8).permute(1, 2, 0)  # (height, width, C)
    return Image.fromarray(levels.squeeze(-1).numpy())


def from_pil(image: Any) -> Tensor:
    """Converts a grey or RGB image of PIL to `(1 or 3, height, width)` in [0, 1]."""
    import numpy as np

    pixels = torch.from_numpy(np.array(image)).float() / 255
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


@cache
def pixel_font(size: int) -> Any:
    """The font of text in pixels: that of matplotlib, since Pillow's lacks most letters with accents."""
    load_matplotlib()
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def panels(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Any, Any]:
    """Builds a matplotlib figure with the palette and light grids, without pyplot's global state.

    Args:
        width: inches of 100 pixels.
        height: inches.
        columns: number of columns of axes.
        rows: number of rows of axes.
        options: options of `Figure.subplots`; without margins the layout is automatic.

    Returns:
        The figure, and an array of its axes, row by row.
    """
    load_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=100, layout=None if "gridspec_kw" in options else "constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axis in axes:
        axis.set_prop_cycle(color=COLORS)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8, which="both")
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def write_figure(figure: Any, path: Path) -> None:
    """Renders a matplotlib figure to a file, in the format of its suffix."""
    load_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas, kind = FigureCanvasAgg(figure), path.suffix[1:]
    with replacing(path, sync=False) as file, rc_context(VECTOR_OPTIONS):
        if kind == "png":
            canvas.print_png(file)  # `savefig` would compute the layout twice
        else:
            figure.savefig(file, format=kind, metadata={"CreationDate" if kind == "pdf" else "Date": None})


def legend_above(figure: Any, axis: Any, columns: int = 2) -> None:
    """Adds a legend of an axis's lines above all axes, in `columns` columns."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=columns, fontsize=8, frameon=False)
