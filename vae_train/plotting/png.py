"""PNG files, of images and of matplotlib figures."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_train.util.files import replacing


def encode_png(image: Tensor) -> bytes:
    """Encodes an image `(C, height, width)` in [0, 1] as the bytes of a PNG."""
    file = BytesIO()
    # Level 1 takes a third of the default level's time for an eighth more bytes: training wants the processor.
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


def panels(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """Builds a matplotlib figure with a row of axes that have a light grid, without pyplot's global state.

    Args:
        width: inches, of 100 pixels.
        height: inches.
        columns: number of axes.
        options: of `Figure.subplots`; without margins the layout is measured.

    Returns:
        The figure, and an array of its axes.
    """
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=100, layout=None if "gridspec_kw" in options else "constrained")
    axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    for axis in axes:
        axis.grid(alpha=0.25)
    return figure, axes


def write_figure(figure: Any, path: Path) -> None:
    """Renders a matplotlib figure to a PNG, without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path, sync=False) as file:
        FigureCanvasAgg(figure).print_png(file)
