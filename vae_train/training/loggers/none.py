"""No logger besides the run's own files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from typing_extensions import override

from vae_train.training.loggers.base import Logger, Row


class NoLogger(Logger):
    """Writes nothing.

    Args:
        folder: not used.
        step: not used.
    """

    def __init__(self, folder: Path, step: int) -> None:
        pass

    @override
    def metrics(self, row: Row) -> None:
        pass

    @override
    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        pass

    @override
    def hyperparameters(self, values: Row, metrics: Row) -> None:
        pass

    @override
    def close(self) -> None:
        pass
