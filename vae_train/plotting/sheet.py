"""Image grids with labels: pixels for PNG and GIF, a figure at the size of a paper for PDF and SVG."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.plotting.grid import (
    GRID_GAP,
    GRID_GREY,
    MIN_IMAGE_SIDE,
    as_strips,
    draw_lines,
    is_lines,
    plot_grid,
    plot_lines,
)
from vae_train.plotting.lazy import load_matplotlib
from vae_train.plotting.png import from_pil, pixel_font, to_pil, write_figure, write_png

Labels = Sequence[tuple[str, float]]
"""Texts with their positions along an axis of the grid, in cells: 0.5 is the centre of the first cell."""

FONT_PIXELS, LINE_PIXELS, PAD_PIXELS = 14, 22, 7
"""Font size, height of a line of text, and its distance from images."""

PAPER_WIDTH, MAX_CELL_INCHES = 5.5, 0.8
"""Width of the text of a conference paper, and maximal width of an image, in inches."""

FONT_POINTS, MIN_FONT_POINTS, LINE_INCHES, PAD_INCHES = 8, 4, 0.16, 0.06

PANEL_RATIO = 1.3
"""Width of the line plot of a signal, relative to its height."""


@dataclass(frozen=True)
class Sheet:
    """Images in rows and columns, with optional labels.

    Small images are enlarged by an integer factor, and signals become line plots, as in `plot_grid`.
    """

    images: Tensor
    """(N, C, H, W) in [0, 1], row by row."""
    columns: int
    """Images per row."""
    left: Labels = ()
    """Labels of rows."""
    above: Labels = ()
    """Labels of columns."""
    below: Labels = ()
    """Values on the horizontal axis."""
    captions: Sequence[str] = ()
    """Texts below the images; empty for none."""
    title: str = ""
    min_side: int = MIN_IMAGE_SIDE
    """Side in pixels to which small images are enlarged."""

    @property
    def cell_texts(self) -> list[str]:
        """Texts that should not be wider than an image."""
        return [*self.captions, *(text for text, _ in self.above)]

    @property
    def bands(self) -> list[tuple[Tensor, Sequence[str]]]:
        """Parts of the grid without text in between, with their captions: one row each if there are captions."""
        starts = range(0, len(self.images), self.columns) if self.captions else [0]
        size = self.columns if self.captions else len(self.images)
        return [(self.images[start : start + size], self.captions[start : start + size]) for start in starts]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns of a band."""
        columns = min(self.columns, len(self.images))
        return 1 if self.captions else -(-len(self.images) // columns), columns


def centered(texts: Sequence[str]) -> Labels:
    """Labels at the centres of consecutive rows or columns; empty texts are left out."""
    return [(text, number + 0.5) for number, text in enumerate(texts) if text]


def plot_rows(kinds: Mapping[str, Tensor], columns: int) -> Tensor:
    """Arranges several versions of the same images in rows, each with a caption.

    Args:
        kinds: caption -> images `(N, C, H, W)` in [0, 1], with the same N for all.
        columns: images per row.

    Returns:
        `(1 or 3, height, width)`.
    """
    missing = -len(next(iter(kinds.values()))) % columns
    full = [_with_blanks(images, missing) for images in kinds.values()]
    images = torch.stack(full, 1).unflatten(0, (-1, columns)).transpose(1, 2)  # (groups, kinds, columns, C, H, W)
    return render(Sheet(images.flatten(0, 2), columns, left=centered(list(kinds) * len(images))))


def _with_blanks(images: Tensor, count: int) -> Tensor:
    """Adds grey images, or empty panels of signals."""
    return F.pad(images, (0, 0, 0, 0, 0, 0, 0, count), value=math.nan if is_lines(images) else GRID_GREY)


def plane_sheet(images: Tensor, side: int, low: Sequence[float], high: Sequence[float]) -> Sheet:
    """Arranges the images of a latent plane, with the values of both latents on the axes.

    Args:
        images: `(side², C, H, W)` in [0, 1], row by row, from the largest to the smallest z2, and from the smallest to
            the largest z1.
        side: images per row.
        low: the smallest z1 and z2.
        high: the largest z1 and z2; the values in between are equally spaced.
    """
    z1, z2 = (_axis_labels(f"z{number + 1}", low[number], high[number], side) for number in range(2))
    return Sheet(images, side, left=[(text, side - place) for text, place in z2], below=z1)


def _axis_labels(name: str, low: float, high: float, side: int) -> Labels:
    """Round values of a latent, and their positions between the centres of the first and the last cell."""
    load_matplotlib()
    from matplotlib.ticker import MaxNLocator

    ticks = [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
    named = min(ticks, key=abs)
    places = [0.5 + (tick - low) / (high - low) * (side - 1) for tick in ticks]
    texts = [f"{name} = {tick:.4g}" if tick == named else f"{tick:.4g}" for tick in ticks]
    texts = [text.replace("-", "\N{MINUS SIGN}") for text in texts]
    return list(zip(texts, places, strict=True))


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Writes a sheet, in the format of the file's suffix: png, pdf or svg."""
    if path.suffix == ".png":
        write_png(path, render(sheet))
    else:
        write_figure(_figure(sheet), path)


class _Text(NamedTuple):
    text: str
    x: float
    y: float
    """Its vertical centre."""
    anchor: str
    """What `x` is: its right end "r", its centre "m" or its left end "l"."""
    has_cell: bool = False
    """Whether it may not be wider than an image."""


class _Layout(NamedTuple):
    """Positions of a sheet's parts, in pixels or inches from the upper left corner."""

    sheet: Sheet
    cell: tuple[float, float]
    """Width and height of an image."""
    margin: float
    """Width of the labels of rows."""
    line: float
    """Height of a line of text."""
    pad: float
    """Distance of the labels of rows from the images."""

    @property
    def top(self) -> float:
        """Where the images begin."""
        return self.line * (bool(self.sheet.title) + bool(self.sheet.above))

    @property
    def band(self) -> float:
        """Height of a band with its captions."""
        return self.sheet.shape[0] * self.cell[1] + (self.line if self.sheet.captions else 0)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        height = self.top + self.band * len(self.sheet.bands) + (self.line if self.sheet.below else 0)
        return self.margin + self.sheet.shape[1] * self.cell[0], height

    def texts(self) -> Iterator[_Text]:
        """Yields all texts."""
        sheet, (_, columns), (width, height) = self.sheet, self.sheet.shape, self.cell
        for number, caption in enumerate(sheet.captions):
            row, column = divmod(number, columns)
            below = self.top + row * self.band + height + self.line / 2
            yield _Text(caption, self.margin + (column + 0.5) * width, below, "m", True)
        for text, place in sheet.left:
            inside = math.floor(place) * self.band + place % 1 * height if sheet.captions else place * height
            yield _Text(text, self.margin - self.pad, self.top + inside, "r")
        for labels, y in ((sheet.above, self.top - self.line / 2), (sheet.below, self.size[1] - self.line / 2)):
            for text, place in labels:
                yield _Text(text, self.margin + place * width, y, "m", labels is sheet.above)
        if sheet.title:
            yield _Text(sheet.title, self.margin, self.line / 2, "l")


def render(sheet: Sheet) -> Tensor:
    """Renders a sheet as pixels `(1 or 3, height, width)`; an enlarged image keeps its pixels."""
    from PIL import Image, ImageDraw

    font = pixel_font(FONT_PIXELS)
    widest = max(map(font.getlength, sheet.cell_texts), default=-PAD_PIXELS) + PAD_PIXELS
    grids = [to_pil(_grid(images, sheet.columns, sheet.min_side, widest)) for images, _ in sheet.bands]
    (rows, columns), grid = sheet.shape, grids[0]
    margin = math.ceil(max((font.getlength(text) for text, _ in sheet.left), default=-2 * PAD_PIXELS)) + 2 * PAD_PIXELS
    cell = (grid.width - GRID_GAP) / columns, (grid.height - (0 if sheet.captions else GRID_GAP)) / rows
    layout = _Layout(sheet, cell, margin, LINE_PIXELS, PAD_PIXELS)
    canvas = Image.new(grid.mode, (margin + grid.width, math.ceil(layout.size[1]) + GRID_GAP), "white")
    for number, grid in enumerate(grids):
        canvas.paste(grid, (margin, round(layout.top + number * layout.band)))
    pen = ImageDraw.Draw(canvas)
    for text, x, y, anchor, _ in layout.texts():
        pen.text((round(x + GRID_GAP / 2), round(y)), text, "black", font, f"{anchor}m")
    return from_pil(canvas)


def _grid(images: Tensor, columns: int, min_side: int, widest: float = 0) -> Tensor:
    """A grid whose images are large enough for texts of `widest` pixels."""
    if is_lines(images):
        return plot_lines(images, columns, max(1, min_side // MIN_IMAGE_SIDE))
    height, width = images.shape[-2:]
    shown = as_strips(images[:1]).shape[-1]
    factor = max(1, min_side // max(height, width), math.ceil(widest / shown))
    return plot_grid(images, columns, factor * max(height, width))


def _figure(sheet: Sheet) -> Any:
    """A matplotlib figure of a sheet at the size of a paper."""
    load_matplotlib()
    from matplotlib.figure import Figure

    (rows, columns), (first, *_) = sheet.shape, sheet.bands
    margin = max((_inches(text) for text, _ in sheet.left), default=-2 * PAD_INCHES) + 2 * PAD_INCHES
    width = max(MAX_CELL_INCHES * LINE_INCHES, min(MAX_CELL_INCHES, (PAPER_WIDTH - margin) / columns))
    strip = as_strips(first[0][:1])
    ratio = PANEL_RATIO if is_lines(first[0]) else strip.shape[-1] / strip.shape[-2]
    layout = _Layout(sheet, (width, width / ratio), margin, LINE_INCHES, PAD_INCHES)
    (full_width, full_height), height = layout.size, rows * layout.cell[1]
    figure = Figure(layout.size, dpi=300)
    for number, (images, _) in enumerate(sheet.bands):
        bottom = full_height - layout.top - number * layout.band - height
        box = margin / full_width, bottom / full_height, columns * width / full_width, height / full_height
        axis = figure.add_axes(box)
        if is_lines(images):
            draw_lines(axis, images, columns)
            continue
        pixels = _grid(images, columns, sheet.min_side).permute(1, 2, 0).expand(-1, -1, 3).numpy()
        axis.imshow(pixels, vmin=0, vmax=1, interpolation="none", aspect="auto")
        axis.axis("off")
    places, small = {"r": "right", "m": "center", "l": "left"}, _points(sheet.cell_texts, width)
    for text, x, y, anchor, has_cell in layout.texts():
        style: Any = {"ha": places[anchor], "va": "center", "fontsize": small if has_cell else FONT_POINTS}
        figure.text(x / full_width, 1 - y / full_height, text, parse_math=False, **style)
    return figure


def _points(texts: Sequence[str], width: float) -> float:
    """The largest font size with which texts are not wider than images of `width` inches."""
    widest = max(map(_inches, texts), default=0.0) + PAD_INCHES / 2
    return max(MIN_FONT_POINTS, FONT_POINTS * min(1.0, width / widest))


def _inches(text: str) -> float:
    load_matplotlib()
    from matplotlib.textpath import TextPath

    return (
        float(TextPath((0, 0), text.replace("$", "S"), size=FONT_POINTS).get_extents().width) / 72
        if text.strip()
        else 0.0
    )
