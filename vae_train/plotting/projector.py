"""Files of TensorBoard's embedding projector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.plotting.arrays import Array, to_float_array
from vae_train.plotting.maps import label_name

MAX_SPRITE_SIDE = 64
"""Pixels on the longer side of the projector's thumbnails."""


def plot_projector(
    folder: Path,
    points: Array,
    labels: Array | None = None,
    images: Array | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Writes the files that TensorBoard's projector shows.

    `SummaryWriter.add_embedding` leaves one more event file at each call and prints a warning.

    Args:
        folder: a folder with event files, or one that is passed to `--logdir`. It gets projector_config.pbtxt,
            tensors.tsv, and metadata.tsv with labels and sprite.png with images.
        points: `(N, D)` encodings.
        labels: `(N,)` int.
        images: `(N, C, H, W)` in [0, 1], shown in place of the points.
        names: names of the labels 0, 1, …
    """
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "tensors.tsv", to_float_array(points), fmt="%.6g", delimiter="\t")
    config = ProjectorConfig()
    entry = config.embeddings.add(tensor_name="encodings", tensor_path="tensors.tsv")
    if labels is not None:
        values = torch.as_tensor(labels).cpu().tolist()
        (folder / "metadata.tsv").write_text("".join(label_name(label, names) + "\n" for label in values), "utf-8")
        entry.metadata_path = "metadata.tsv"
    if images is not None:
        height, width = _write_sprite(folder / "sprite.png", torch.as_tensor(images).detach().cpu())
        entry.sprite.image_path = "sprite.png"
        entry.sprite.single_image_dim.extend([width, height])
    (folder / "projector_config.pbtxt").write_text(str(config), "utf-8")


def _write_sprite(path: Path, images: Tensor) -> tuple[int, int]:
    """Writes images `(N, C, H, W)` row by row as a square of thumbnails; returns height and width of each."""
    from PIL import Image

    images = images.float().clamp(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    factor = min(1.0, MAX_SPRITE_SIDE / max(images.shape[2:]))
    height, width = (max(1, round(factor * side)) for side in images.shape[2:])
    images = F.interpolate(images, (height, width), mode="area")
    side = math.isqrt(len(images) - 1) + 1  # the root, rounded up: the projector derives it from the number of points
    padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, side**2 - len(images)))
    square = padded.view(side, side, -1, height, width).permute(0, 3, 1, 4, 2)  # (rows, H, columns, W, C)
    levels = (square.reshape(side * height, side * width, -1) * 255).round().to(torch.uint8)
    Image.fromarray(levels.squeeze(-1).numpy()).save(path)
    return height, width
