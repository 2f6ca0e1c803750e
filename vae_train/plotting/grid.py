"""Image grids, contact sheets and line plots of signals, as tensors with shape (C, height, width) in [0, 1]."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.plotting.palette import COLORS
from vae_train.plotting.png import to_pil

GRID_GAP, GRID_GREY = 2, 0.5
"""Width of the gap between images in pixels, and its grey level."""

MIN_IMAGE_SIDE, MIN_LABELED_SIDE, MIN_SINGLE_SIDE = 56, 84, 336
"""Side to which small images are enlarged, by an integer factor: in a grid, on a contact sheet, and alone."""

MAX_CHANNELS = 8
"""Maximal number of channels of an image that are shown side by side."""

MIN_TEXT_WIDTH, TEXT_HEIGHT, FONT_SIZE = 88, 16, 13
"""Sizes, in pixels, of text below the images of a contact sheet and beside a grid."""


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
    if images.shape[-2] == 1 and images.shape[-1] > 1:
        return plot_lines(images, columns)
    images = as_strips(enlarge(images.detach().float().cpu().clamp(0, 1), min_side))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    framed = F.pad(images, (0, GRID_GAP, 0, GRID_GAP, 0, 0, 0, rows * columns - len(images)), value=GRID_GREY)
    _, channels, height, width = framed.shape
    image = framed.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return F.pad(image.reshape(channels, rows * height, columns * width), (GRID_GAP, 0, GRID_GAP, 0), value=GRID_GREY)


def enlarge(images: Tensor, min_side: int) -> Tensor:
    """Repeats the pixels of small images `(N, C, H, W)`, so that no side exceeds `min_side` or the original's."""
    factor = max(1, min_side // max(images.shape[-2:]))
    return images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def plot_rows(kinds: Mapping[str, Tensor], columns: int) -> Tensor:
    """Arranges several versions of the same images in rows, each with a caption.

    Args:
        kinds: caption -> images `(N, C, H, W)` in [0, 1], with the same N for all.
        columns: images per row.

    Returns:
        `(1 or 3, height, width)`.
    """
    rows = zip(*(images.split(columns) for images in kinds.values()), strict=True)
    grid = plot_grid(torch.cat([row for group in rows for row in group]), columns)
    count = len(kinds) * -(-len(next(iter(kinds.values()))) // columns)
    places = [(grid.shape[1] - GRID_GAP) * (row + 0.5) / count for row in range(count)]
    return _with_axes(grid, left=list(zip(list(kinds) * count, places, strict=False)))


def plot_plane(images: Tensor, side: int, limit: float) -> Tensor:
    """Arranges the images of a latent plane, with the values of both latents on the axes.

    Args:
        images: `(side², C, H, W)` in [0, 1], row by row, from the largest to the smallest z2, and from the smallest to
            the largest z1.
        side: images per row.
        limit: z1 and z2 range from -`limit` to `limit`, in equal steps.

    Returns:
        `(1 or 3, height, width)`.
    """
    grid = plot_grid(images, side)
    height, width = (length - GRID_GAP for length in grid.shape[1:])
    ticks = [(value, (value / limit + 1) / 2 * (side - 1) + 0.5) for value in range(-int(limit), int(limit) + 1)]
    left = [(f"{value}" if value else "z2 = 0", height * (1 - place / side)) for value, place in ticks]
    below = [(f"{value}" if value else "z1 = 0", width * place / side) for value, place in ticks]
    return _with_axes(grid, left, below)


Texts = Sequence[tuple[str, float]]
"""Texts with their positions on an axis in pixels."""


def _with_axes(grid: Tensor, left: Texts, below: Texts = ()) -> Tensor:
    """Adds right-aligned texts on the left of a grid, and centred texts below it."""
    from PIL import Image, ImageDraw, ImageFont

    image, font = to_pil(grid), ImageFont.load_default(FONT_SIZE)
    margin = round(max(font.getlength(text) for text, _ in left)) + 12
    height = image.height + (TEXT_HEIGHT + 8 if below else 0)
    canvas = Image.new(image.mode, (image.width + margin, height), "white")
    canvas.paste(image, (margin, 0))
    pen = ImageDraw.Draw(canvas)
    for text, place in left:
        pen.text((margin - 6, place + GRID_GAP), text, "black", font, anchor="rm")
    for text, place in below:
        pen.text((margin + place, image.height + 4), text, "black", font, anchor="ma")
    return _from_pil(canvas)


def grey_out(images: Tensor, mask: Tensor | None) -> Tensor:
    """Replaces values that are not observed by grey.

    Args:
        images: `(N, C, H, W)` in [0, 1].
        mask: `(N, 1 or C, H, W)` bool, True for observed pixels; None if all are.
    """
    return images if mask is None else torch.where(mask.to(images.device), images, GRID_GREY)


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


def plot_lines(signals: Tensor, columns: int) -> Tensor:
    """Plots signals in small panels, with one line per channel.

    Args:
        signals: `(N, C, 1, T)` in [0, 1].
        columns: panels per row.

    Returns:
        `(3, height, width)`.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = signals.detach().float().cpu().clamp(-0.05, 1.05)[:, :, 0].numpy()
    count, channels, length = values.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    across, down = np.arange(count) % columns, np.arange(count) // columns
    x = 0.05 + 0.9 * np.linspace(0, 1, length) + across[:, None]  # (N, T)
    y = 0.05 + 0.9 * (1 - values) + down[:, None, None]  # (N, C, T), downwards
    figure = Figure(figsize=(1.3 * columns, 1.0 * rows), dpi=100)
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    for channel in range(channels):
        axis.plot(x.T, y[:, channel].T, color=COLORS[channel % len(COLORS)], linewidth=0.9)
    axis.hlines(range(rows + 1), 0, columns, colors="0.8", linewidths=0.8)
    axis.vlines(range(columns + 1), 0, rows, colors="0.8", linewidths=0.8)
    axis.set(xlim=(0, columns), ylim=(rows, 0))
    axis.axis("off")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def plot_contact_sheet(images: Tensor, texts: Sequence[str], columns: int) -> Tensor:
    """Arranges images in rows and columns, each with a text below it.

    Args:
        images: `(N, C, H, W)` in [0, 1].
        texts: N texts; long ones are truncated.
        columns: images per row.

    Returns:
        `(3, height, width)`.
    """
    from PIL import Image, ImageDraw, ImageFont

    tiles = [plot_grid(image[None], 1, MIN_LABELED_SIDE)[:, GRID_GAP:-GRID_GAP, GRID_GAP:-GRID_GAP] for image in images]
    height, width = tiles[0].shape[1:]
    font, line = ImageFont.load_default(FONT_SIZE), TEXT_HEIGHT if any(texts) else 0
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
    return _from_pil(sheet)


def _from_pil(image: Any) -> Tensor:
    """Converts a grey or RGB image of PIL to `(1 or 3, height, width)` in [0, 1]."""
    import numpy as np

    pixels = torch.from_numpy(np.array(image)).float() / 255
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
