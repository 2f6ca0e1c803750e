"""Writes animated GIFs."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from vae_train.plotting.grid import GRID_GAP, MIN_SINGLE_SIDE, plot_grid
from vae_train.plotting.png import to_pil
from vae_train.util.files import replacing

MAX_COLORS = 256
"""Maximal number of colours of a frame."""


def write_gif(path: Path, images: Tensor, seconds_per_frame: float) -> None:
    """Writes images `(N, C, H, W)` in [0, 1] as an animated GIF that repeats forever.

    Small images are enlarged by an integer factor, signals become line plots, and channels other than grey and RGB are
    shown side by side, as in `plot_grid`.

    Args:
        path: the file to write.
        images: the frames.
        seconds_per_frame: duration of a frame, rounded to 1/100 s.
    """
    framed = [plot_grid(image[None], 1, MIN_SINGLE_SIDE) for image in images]
    write_frames(path, [frame[:, GRID_GAP:-GRID_GAP, GRID_GAP:-GRID_GAP] for frame in framed], seconds_per_frame)


def write_frames(path: Path, frames: Iterable[Tensor], seconds_per_frame: float, there_and_back: bool = False) -> None:
    """Writes frames `(1 or 3, height, width)` in [0, 1], all of one size, as an animated GIF, without enlarging them.

    Grey frames keep all of their levels. A colour frame keeps its colours if there are at most `MAX_COLORS`.

    Args:
        path: the file to write.
        frames: the frames, which need not be in memory at the same time.
        seconds_per_frame: duration of a frame, rounded to 1/100 s.
        there_and_back: also show the frames backwards, so that the repetition does not jump.
    """
    images = list(map(_with_palette, frames))
    first, *rest = [*images, *images[-2:0:-1]] if there_and_back else images
    milliseconds, file = 10 * max(1, round(100 * seconds_per_frame)), BytesIO()
    # Pillow merges equal frames into a longer one.
    first.save(file, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=False)
    with replacing(path, sync=False) as output:
        output.write(file.getvalue())


def _with_palette(frame: Tensor) -> Any:
    """Converts a frame to a PIL image with at most `MAX_COLORS` colours. Dithering would flicker."""
    from PIL import Image

    image = to_pil(frame)
    if image.mode == "L":
        return image
    return image.quantize(MAX_COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
