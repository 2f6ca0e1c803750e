"""Picture grids of a model: reconstructions, samples, the manifold of two latents. Shape (3 or 1, height, width)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.batch import Batch
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.rng import BlockRng, Rng

GAP, GREY = 2, 0.5
"""Pixels between the images of a grid, and their colour."""

if TYPE_CHECKING:
    from PIL import Image

SIDE = 20
"""Images on each side of a manifold."""


def grid(images: Tensor, columns: int) -> Tensor:
    """Images `(N, C, H, W)` in [0, 1] side by side, with shape `(3 or 1, height, width)`; small ones are enlarged.

    Signals and vectors, whose height is 1, are drawn as lines.

    (torchvision has such a function, and takes longer to import than a short training.)
    """
    if images.shape[-2] == 1 and images.shape[-1] > 1:
        return lines(images, columns)
    factor = max(1, 56 // max(images.shape[-2:]))
    images = images.detach().float().cpu().clamp(0, 1)
    images = images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    framed = F.pad(images, (0, GAP, 0, GAP), value=GREY)
    framed = F.pad(framed, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(images)), value=GREY)
    _, channels, height, width = framed.shape
    picture = framed.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return F.pad(picture.reshape(channels, rows * height, columns * width), (GAP, 0, GAP, 0), value=GREY)


def lines(signals: Tensor, columns: int) -> Tensor:
    """Signals `(N, C, 1, T)` in [0, 1] in small frames side by side, a line per channel, as `(3, height, width)`."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
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
        points = np.stack([x, y[:, channel]], -1)
        axis.add_collection(LineCollection(list(points), colors=f"C{channel % 10}", linewidths=0.9))
    frames = [[(c, r), (c + 1, r), (c + 1, r + 1), (c, r + 1), (c, r)] for r in range(rows) for c in range(columns)]
    axis.add_collection(LineCollection(frames, colors="0.8", linewidths=0.8))
    axis.set(xlim=(0, columns), ylim=(rows, 0))
    axis.axis("off")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def contact_sheet(images: Tensor, texts: Sequence[str], columns: int) -> Tensor:
    """Images `(N, C, H, W)` in [0, 1] side by side, each above its text, with shape `(3, height, width)`."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    tiles = [grid(image[None], 1)[:, GAP:-GAP, GAP:-GAP] for image in images]
    height, width = tiles[0].shape[1:]
    font, line = ImageFont.load_default(), 12 if any(texts) else 0
    cell_width, cell_height = max(width, 72) + 2 * GAP, height + line + 2 * GAP
    columns = min(columns, len(tiles))
    sheet = Image.new("RGB", (columns * cell_width, -(-len(tiles) // columns) * cell_height), (127, 127, 127))
    pen = ImageDraw.Draw(sheet)
    for number, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        left, top = number % columns * cell_width, number // columns * cell_height
        sheet.paste(_image(tile), (left + (cell_width - width) // 2, top + GAP))
        while text and pen.textlength(text, font) > cell_width:
            text = text[:-1]
        middle = left + (cell_width - pen.textlength(text, font)) / 2
        pen.text((middle, top + height + GAP), text, (255, 255, 255), font)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).float() / 255


def histogram(counts: Tensor, path: Path) -> None:
    """Draws how often each value occurs in every channel.

    Args:
        counts: `(C, bins)`, the bins that [0, 1] is cut into.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    channels, bins = counts.shape
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.add_subplot()
    colors = ("C3", "C2", "C0") if channels == 3 else ("0.3",)
    for channel, row in enumerate((counts / counts.sum(1, keepdim=True)).tolist()):
        edges = [i / bins for i in range(bins + 1)]
        axis.stairs(row, edges, color=colors[channel % len(colors)], fill=channels == 1)
    axis.set(yscale="log", xlabel="pixel value", ylabel="share of the values")
    axis.grid(alpha=0.25)
    FigureCanvasAgg(figure).print_png(str(path))


@torch.no_grad()
def reconstructions(model: LatentVariableModel, batch: Batch, seed: int) -> Tensor:
    """Originals and reconstructions, which are means of p(x | z) for one z of q(z | x), with shape `(2 N, C, H, W)`.

    They are in the order of a grid with `columns` columns: a row of originals above its reconstructions. What the
    encoder saw stands between them where it is not the original; there are 3 N images then.

    Args:
        model: the model.
        batch: N images.
        seed: decides z.
    """
    rng, x = BlockRng(seed, "pictures", 0, device=batch.x.device), batch.x
    kinds = [x, *([] if batch.encoder_input is None else [batch.encoder_input]), model(batch, rng).px.mean[0]]
    rows = zip(*(images.split(columns(x)) for images in kinds), strict=True)
    return torch.cat([row for group in rows for row in group])


def columns(x: Tensor) -> int:
    """Columns of a grid of the images `x` and their reconstructions."""
    return min(8, len(x))


@torch.no_grad()
def samples(model: LatentVariableModel, num: int, seed: int, device: torch.device, temperature: float = 1.0) -> Tensor:
    """Means of p(x | z) for `num` draws of z from the prior, with shape `(num, C, H, W)`."""
    return model.sample(num, Rng(seed, "samples", device=device), temperature).mean


@torch.no_grad()
def manifold(model: SingleLatent, device: torch.device, reach: float = 2.0) -> Tensor:
    """Means of p(x | z) for `SIDE`² values of a two-dimensional z between -`reach` and `reach`.

    They have the order of a grid with `SIDE` columns, the second latent upwards.
    """
    axis = torch.linspace(-reach, reach, SIDE, device=device)
    z = torch.stack(torch.meshgrid(axis, axis.flip(0), indexing="xy"), -1).reshape(-1, 2)
    return model.decode(z).mean


def is_planar(model: LatentVariableModel) -> TypeGuard[SingleLatent]:
    """Whether the model has one latent with two dimensions and no condition, so that its manifold can be drawn."""
    return isinstance(model, SingleLatent) and tuple(model.latent_shape) == (2,) and model.condition is None


def write(path: Path, picture: Tensor) -> None:
    """Writes a grid `(C, height, width)` in [0, 1] as a PNG."""
    path.write_bytes(encoded(picture))


def encoded(picture: Tensor) -> bytes:
    """A grid `(C, height, width)` in [0, 1] as the bytes of a PNG."""
    file = BytesIO()
    # A third of the time of the usual level for an eighth more bytes: training wants the processor.
    _image(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _image(picture: Tensor) -> Image.Image:
    from PIL import Image

    levels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0)  # (height, width, C)
    return Image.fromarray(levels.squeeze(-1).numpy())
