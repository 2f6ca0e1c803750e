"""What a logger is.

To write to another place, add a class with some of these methods and a YAML under `conf/logger/`.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

Row = dict[str, Any]


def to_line(row: Row) -> str:
    """A row as JSON, in which numbers that are not finite are null."""
    return json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()})


def row_digest(rows: Iterable[Row], digest: str = "") -> str:
    """A digest of rows of metrics, or of a digest and the rows that follow."""
    for row in rows:
        digest = hashlib.blake2b((digest + to_line(row)).encode(), digest_size=8).hexdigest()
    return digest


class Logger:
    """Writes metrics and image grids of a run. This base writes nothing.

    Args:
        folder: where the log goes.
        step: the step that the run resumes at.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def metrics(self, row: Row) -> None:
        """Writes a row of metrics; it has "step", "epoch", "split" and "scope" ("step" or "epoch").

        What `vae eval` measures of the best epoch has the split "best/test" or "best/valid".
        """

    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        """Writes an image grid.

        Args:
            kind: "samples" or "reconstructions" of training, or for instance "best/test" of `vae eval`.
            name: which of this kind: "epoch-0010", "final", "manifold" or "class-means".
            step: number of updates so far.
            grid: tensor with shape `(C, height, width)` in [0, 1].
        """

    def latents(self, step: int, kl: Sequence[float]) -> None:
        """Writes KL(q(z_d | x) || p(z_d)) of every latent dimension, nats, the mean over some images."""

    def hyperparameters(self, values: Row, best: Row) -> None:
        """Writes the settings of a run that has ended, and the row of metrics of its best epoch."""

    def close(self) -> None:
        """Ends the log; nothing is written afterwards."""
