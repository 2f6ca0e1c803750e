"""What a logger is.

To write to another place, add a class with some of these four methods and a YAML under `conf/logger/`.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

Row = dict[str, Any]


class Logger:
    """Writes metrics and image grids of a run. This base writes nothing.

    Args:
        folder: where the log goes.
        step: the step that the run resumes at.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def metrics(self, row: Row) -> None:
        """Writes a row of metrics; it has "step", "epoch", "split" and "scope" ("step" or "epoch")."""

    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        """Writes an image grid.

        Args:
            kind: "samples" or "reconstructions".
            name: which of this kind: "epoch-0010", "final" or "manifold".
            step: number of updates so far.
            grid: tensor with shape `(C, height, width)` in [0, 1].
        """

    def hyperparameters(self, values: Row, metrics: Row) -> None:
        """Writes the run's settings and its final metrics."""

    def close(self) -> None:
        """Ends the log; nothing is written afterwards."""
