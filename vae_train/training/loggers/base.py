"""The interface of loggers.

To add a logger, write a class with some of these methods and a YAML in `conf/logger/`.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

Row = dict[str, Any]


def to_line(row: Row) -> str:
    """A row as JSON, with null for numbers that are not finite."""
    return json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()})


def row_digest(rows: Iterable[Row], digest: str = "") -> str:
    """A digest of rows of metrics; extends a digest of earlier rows if one is given."""
    for row in rows:
        digest = hashlib.blake2b((digest + to_line(row)).encode(), digest_size=8).hexdigest()
    return digest


def series_name(row: Row) -> str:
    """The name for the metrics of a row: its split, or "train_steps" for means since the last row of the log."""
    return "train_steps" if row["scope"] == "step" else str(row["split"])


def grid_name(kind: str, name: str) -> str:
    """The name that image grids of all epochs share, for instance "samples"; see `Logger.image_grid`."""
    return kind if name == "final" or name.startswith("epoch-") else name


class RunLabel(NamedTuple):
    """What a run is called in places that collect runs."""

    id: str
    """The same whenever the run is continued, and another one for every other run."""
    name: str
    group: str | None
    """The sweep that the run belongs to."""
    settings: Row
    """Its configuration by dotted path."""
    is_training: bool = True
    """False where an evaluation adds to a run."""


class Logger:
    """Writes metrics and image grids of a run. This base class writes nothing.

    Args:
        folder: where the log goes.
        step: the step at which the run resumes.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def start(self, run: RunLabel) -> None:
        """Called once, before everything else."""

    def metrics(self, row: Row) -> None:
        """Writes a row of metrics; it has "step", "epoch", "split" and "scope" ("step" or "epoch").

        Metrics of `vae eval` have a split such as "best/test".
        """

    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        """Writes an image grid.

        Args:
            kind: "samples" or "reconstructions" during training; for instance "best/test" in `vae eval`.
            name: for instance "epoch-0010", "final", "manifold" or "class-means".
            step: number of updates so far.
            grid: tensor with shape `(C, height, width)` in [0, 1].
        """

    def latents(self, step: int, kl: Sequence[float]) -> None:
        """Writes KL(q(z_d | x) || p(z_d)) of every latent dimension in nats, averaged over some images."""

    def hyperparameters(self, values: Row, best: Row) -> None:
        """Writes the settings of a finished run, and the metrics of its best epoch."""

    def close(self) -> None:
        """Ends the log; nothing is written afterwards."""
