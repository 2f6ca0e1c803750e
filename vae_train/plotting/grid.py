"""Image grids, contact sheets and lines for signals, as tensors of shape (C, height, width) in [0, 1]."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.plotting.png import to_pil

GRID_GAP, GRID_GREY = 2, 0.5
"""Pixels between the images of a grid, and the grey level of the gap."""

MIN_IMAGE_SIDE = 56
"""Pixels that small images are enlarged to, by a whole factor."""

MAX_CHANNELS = 8
"""Channels of an image that are shown beside each other."""

MIN_TEXT_WIDTH, TEXT_HEIGHT = 72, 12
"""Pixels for the text below an image of a contact sheet."""


def plot_grid(images: Tensor, columns: int) -> Tensor:
    """Arranges images in rows and columns; small images are enlarged, signals of height 1 become lines.

    Images with another number of channels than 1 or 3 are shown as `as_strips` says.

    torchvision has such a function, but importing torchvision takes longer than a short training.

    Args:
        images: `(N, C, H, W)` in [0, 1]; values outside are clipped.
        columns: images per row.

    Returns:
        `(1 or 3, height, width)`.
    """
    if images.shape[-2] == 1 and images.shape[-1] > 1:
        return plot_lines(images, columns)
    factor = max(1, MIN_IMAGE_SIDE // max(images.shape[-2:]))
    images = images.detach().float().cpu().clamp(0, 1)
    images = as_strips(images.repeat_interleave(factor, -1).repeat_interleave(factor, -2))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    framed = F.pad(images, (0, GRID_GAP, 0, GRID_GAP, 0, 0, 0, rows * columns - len(images)), value=GRID_GREY)
    _, channels, height, width = framed.shape
    image = framed.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return F.pad(image.reshape(channels, rows * height, columns * width), (GRID_GAP, 0, GRID_GAP, 0), value=GRID_GREY)


def as_strips(images: Tensor) -> Tensor:
    """Puts channels that are neither grey nor RGB beside each other, as grey images.

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
    """What images `(C, H, W)` are shown as, if that is neither grey, RGB nor lines."""
    channels, height, width = shape
    if channels in (1, 3) or (height == 1 and width > 1):
        return None
    which = f"the first {MAX_CHANNELS} of {channels}" if channels > MAX_CHANNELS else f"all {channels}"
    return f"images show {which} channels side by side, as grey"


def plot_lines(signals: Tensor, columns: int) -> Tensor:
    """Plots signals in small frames, one line per channel.

    Args:
        signals: `(N, C, 1, T)` in [0, 1].
        columns: frames per row.

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
        axis.plot(x.T, y[:, channel].T, color=f"C{channel % 10}", linewidth=0.9)
    axis.hlines(range(rows + 1), 0, columns, colors="0.8", linewidths=0.8)
    axis.vlines(range(columns + 1), 0, rows, colors="0.8", linewidths=0.8)
    axis.set(xlim=(0, columns), ylim=(rows, 0))
    axis.axis("off")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def plot_contact_sheet(images: Tensor, texts: Sequence[str], columns: int) -> Tensor:
    """Arranges images in rows and columns, each above its text.

    Args:
        images: `(N, C, H, W)` in [0, 1].
        texts: N texts; one that is too long is cut.
        columns: images per row.

    Returns:
        `(3, height, width)`.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    tiles = [plot_grid(image[None], 1)[:, GRID_GAP:-GRID_GAP, GRID_GAP:-GRID_GAP] for image in images]
    height, width = tiles[0].shape[1:]
    font, line = ImageFont.load_default(), TEXT_HEIGHT if any(texts) else 0
    cell_width, cell_height = max(width, MIN_TEXT_WIDTH) + 2 * GRID_GAP, height + line + 2 * GRID_GAP
    columns = min(columns, len(tiles))
    sheet = Image.new("RGB", (columns * cell_width, -(-len(tiles) // columns) * cell_height), (127, 127, 127))
    pen = ImageDraw.Draw(sheet)
    for number, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        left, top = number % columns * cell_width, number // columns * cell_height
        sheet.paste(to_pil(tile), (left + (cell_width - width) // 2, top + GRID_GAP))
        while text and pen.textlength(text, font) > cell_width:
            text = text[:-1]
        middle = left + (cell_width - pen.textlength(text, font)) / 2
        pen.text((middle, top + height + GRID_GAP), text, (255, 255, 255), font)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).float() / 255
