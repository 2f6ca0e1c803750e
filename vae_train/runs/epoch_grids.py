"""The image grids that a training has written, in the order of epochs."""

import re
from pathlib import Path
from typing import Any

MAX_PIXELS = 50_000_000
"""Larger images are left out, since a crafted file could exhaust the memory."""


def grid_names(*folders: Path) -> list[tuple[str, str]]:
    """Labels and file names of all grids in some folders, for instance "epoch 10" and "epoch-0010.png"."""
    epochs = {
        int(match[1]): path.name
        for folder in folders
        for path in folder.glob("epoch-*.png")
        if (match := re.fullmatch(r"epoch-(\d{1,9})\.png", path.name))
    }
    final = [("the end of training", name) for name in ("final.png",) if any((f / name).exists() for f in folders)]
    return [*((f"epoch {epoch}", epochs[epoch]) for epoch in sorted(epochs)), *final]


def open_grid(path: Path) -> Any:
    """Reads a grey or RGB image with PIL; None if it is missing, damaged or too large."""
    from PIL import Image

    if not path.is_file():  # a pipe would never end
        return None
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            return image.convert("RGB" if image.mode != "L" else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what damaged files make Pillow raise
        return None
