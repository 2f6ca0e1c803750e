"""Image files of a run as data URIs, so that a page needs no other file."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vae_train.batch import evenly_spaced
from vae_train.plotting.grid import plot_grid
from vae_train.plotting.png import to_pil
from vae_train.runs.epoch_grids import grid_names, open_grid

MAX_PNG_BYTES = 200_000
"""Larger images become JPEGs, so that reports about photographs stay small enough for an e-mail."""

JPEG_QUALITY = 90


class EmbeddedImage(NamedTuple):
    """An image as the source of an `<img>` element."""

    uri: str
    width: int
    height: int


class Frame(NamedTuple):
    """Samples and reconstructions after an epoch."""

    label: str
    """For instance "epoch 10" or "the end"."""
    samples: EmbeddedImage | None
    reconstructions: EmbeddedImage | None


def read_image(path: Path) -> EmbeddedImage | None:
    """Reads an image file and encodes it again; None if it is missing or damaged."""
    image = open_grid(path)
    return None if image is None else _encode(image)


def embed(images: Tensor, columns: int) -> EmbeddedImage:
    """Encodes a grid of images `(N, C, H, W)` in [0, 1]."""
    return _encode(to_pil(plot_grid(images, columns)))


def _encode(image: Any) -> EmbeddedImage:
    file, kind = BytesIO(), "png"
    image.save(file, "PNG")
    if file.tell() > MAX_PNG_BYTES:
        file, kind = BytesIO(), "jpeg"
        image.save(file, "JPEG", quality=JPEG_QUALITY)
    return EmbeddedImage(
        f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", image.width, image.height
    )


def read_frames(samples: Path, reconstructions: Path, limit: int) -> list[Frame]:
    """Reads the image grids of a training in the order of epochs.

    Args:
        samples: folder of the grids of samples.
        reconstructions: folder of the grids of reconstructions.
        limit: maximal number of frames; they are evenly spaced and include the first and the last.
    """
    named = grid_names(samples, reconstructions)
    named = [named[number] for number in evenly_spaced(len(named), limit).tolist()] if named else []
    frames = [Frame(label, *(read_image(f / name) for f in (samples, reconstructions))) for label, name in named]
    return [frame for frame in frames if frame.samples or frame.reconstructions]
