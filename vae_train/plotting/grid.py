"""Image grids, contact sheets and line plots of signals, as tensors with shape (C, height, width) in [0, 1]."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.plotting.lazy import load_matplotlib
from vae_train.plotting.palette import COLORS
from vae_train.plotting.png import from_pil, pixel_font, to_pil

GRID_GAP, GRID_GREY = 2, 0.5
"""Width of the gap between images in pixels, and its grey level."""

MIN_IMAGE_SIDE, MIN_LABELED_SIDE, MIN_SINGLE_SIDE = 56, 84, 336
"""Side to which small images are enlarged, by an integer factor: in a grid, on a contact sheet, and alone."""

MAX_CHANNELS = 8
"""Maximal number of channels of an image that are shown side by side."""

MIN_TEXT_WIDTH, TEXT_HEIGHT, FONT_SIZE = 88, 16, 12
"""Sizes, in pixels, of text below the images of a contact sheet."""


def plot_grid(images: Tensor, columns: int, min_side: int = MIN_IMAGE_SIDE) -> Tensor:
    """Arranges images in rows and columns; small images are enlarged, and signals (height 1) become line plots.

    Images that do not have 1 or 3 channels are converted by `as_strips`.

    torchvision has a similar function, but importing torchvision takes longer than a short training.

    Args:
        images: `(N, C, H, W)` in [0, 1]; values outside are clipped.
        columns: images per row.
        min_side: side to which small images are enlarged, by the largest integer factor.

    Returns:
        `(1 or 3, height, width)`.
    """
    if is_lines(images):
        return plot_lines(images, columns)
    images = as_strips(enlarge(images.detach().float().cpu().clamp(0, 1), min_side))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    framed = F.pad(images, (0, GRID_GAP, 0, GRID_GAP, 0, 0, 0, rows * columns - len(images)), value=GRID_GREY)
    _, channels, height, width = framed.shape
    image = framed.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return F.pad(image.reshape(channels, rows * height, columns * width), (GRID_GAP, 0, GRID_GAP, 0), value=GRID_GREY)


def is_lines(images: Tensor) -> bool:
    """Whether images `(N, C, H, W)` are signals or vectors, which are plotted as lines."""
    return images.shape[-2] == 1 and images.shape[-1] > 1


def enlarge(images: Tensor, min_side: int) -> Tensor:
    """Repeats the pixels of small images `(N, C, H, W)`, so that no side exceeds `min_side` or the original's."""
    factor = max(1, min_side // max(images.shape[-2:]))
    return images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def grey_out(images: Tensor, mask: Tensor | None) -> Tensor:
    """Replaces values that are not observed by grey; in signals by NaN, which leave a gap in a line.

    Args:
        images: `(N, C, H, W)` in [0, 1].
        mask: `(N, 1 or C, H, W)` bool, True for observed pixels; None if all are.
    """
    hidden = math.nan if is_lines(images) else GRID_GREY
    return images if mask is None else torch.where(mask.to(images.device), images, hidden)


def as_strips(images: Tensor) -> Tensor:
    """Puts channels side by side as grey images, unless they are grey or RGB.

    Args:
        images: `(N, C, H, W)` in [0, 1].

    Returns:
        The images if C is 1 or 3, else the first `MAX_CHANNELS` channels as `(N, 1, H, W')`, one column apart.
    """
    if images.shape[1] in (1, 3):
        return images
    apart = F.pad(images[:, :MAX_CHANNELS], (0, 1), value=GRID_GREY)
    return apart.permute(0, 2, 1, 3).flatten(2)[:, None, :, :-1]


def channels_note(shape: Sequence[int]) -> str | None:
    """Describes how images `(C, H, W)` are shown, unless they are grey, RGB or signals."""
    channels, height, width = shape
    if channels in (1, 3) or (height == 1 and width > 1):
        return None
    which = f"the first {MAX_CHANNELS} of {channels}" if channels > MAX_CHANNELS else f"all {channels}"
    return f"images show {which} channels side by side, as grey"


def plot_lines(signals: Tensor, columns: int, scale: int = 1) -> Tensor:
    """Plots signals in small panels, with one line per channel.

    Args:
        signals: `(N, C, 1, T)` in [0, 1].
        columns: panels per row.
        scale: a panel has 130 · scale times 100 · scale pixels.

    Returns:
        `(3, height, width)`.
    """
    import numpy as np

    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, len(signals))
    figure = Figure(figsize=(1.3 * columns, 1.0 * -(-len(signals) // columns)), dpi=100 * scale)
    draw_lines(figure.add_axes((0.0, 0.0, 1.0, 1.0)), signals, columns)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def draw_lines(axis: Any, signals: Tensor, columns: int) -> None:
    """Draws the panels of `plot_lines` on a matplotlib axis, which they fill."""
    import numpy as np

    values = signals.detach().float().cpu().clamp(-0.05, 1.05)[:, :, 0].numpy()
    count, channels, length = values.shape
    rows = -(-count // columns)
    across, down = np.arange(count) % columns, np.arange(count) // columns
    x = 0.05 + 0.9 * np.linspace(0, 1, length) + across[:, None]  # (N, T)
    y = 0.05 + 0.9 * (1 - values) + down[:, None, None]  # (N, C, T), downwards
    known = np.pad(~np.isnan(y), ((0, 0), (0, 0), (1, 1)))
    alone = known[..., 1:-1] & ~known[..., :-2] & ~known[..., 2:]  # which a line does not show
    for channel in range(channels):
        color = COLORS[channel % len(COLORS)]
        axis.plot(x.T, y[:, channel].T, color=color, linewidth=0.9)
        axis.plot(x[alone[:, channel]], y[:, channel][alone[:, channel]], ".", color=color, markersize=3)
    axis.hlines(range(rows + 1), 0, columns, colors="0.8", linewidths=0.8)
    axis.vlines(range(columns + 1), 0, rows, colors="0.8", linewidths=0.8)
    axis.set(xlim=(0, columns), ylim=(rows, 0))
    axis.axis("off")


def plot_contact_sheet(images: Tensor, texts: Sequence[str], columns: int) -> Tensor:
    """Arranges images in rows and columns, each with a text below it.

    Args:
        images: `(N, C, H, W)` in [0, 1].
        texts: N texts; long ones are truncated.
        columns: images per row.

    Returns:
        `(3, height, width)`.
    """
    from PIL import Image, ImageDraw

    tiles = [plot_grid(image[None], 1, MIN_LABELED_SIDE)[:, GRID_GAP:-GRID_GAP, GRID_GAP:-GRID_GAP] for image in images]
    height, width = tiles[0].shape[1:]
    font, line = pixel_font(FONT_SIZE), TEXT_HEIGHT if any(texts) else 0
    cell_width, cell_height = max(width, MIN_TEXT_WIDTH) + 2 * GRID_GAP, height + line + 2 * GRID_GAP
    columns = min(columns, len(tiles))
    sheet = Image.new("RGB", (columns * cell_width, -(-len(tiles) // columns) * cell_height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        left, top = number % columns * cell_width, number // columns * cell_height
        sheet.paste(to_pil(tile), (left + (cell_width - width) // 2, top + GRID_GAP))
        while text and pen.textlength(text, font) > cell_width:
            text = text[:-1]
        middle = left + (cell_width - pen.textlength(text, font)) / 2
        pen.text((middle, top + height + GRID_GAP), text, "black", font)
    return from_pil(sheet)
