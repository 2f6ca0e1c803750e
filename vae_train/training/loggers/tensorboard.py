"""TensorBoard."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from typing_extensions import override

from vae_train.plotting.png import encode_png
from vae_train.training.loggers.base import Logger, Row
from vae_train.util.ranges import PositiveInt

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Logger):
    """Curves, image grids and hyper-parameters for TensorBoard.

    Args:
        folder: where the event file goes.
        step: the step that the run resumes at; later points are hidden.
        flush_secs: seconds after which the page shows what was written.
    """

    def __init__(self, folder: Path, step: int, flush_secs: PositiveInt) -> None:
        super().__init__(folder, step)
        self.flush_secs = flush_secs

    @cached_property
    def _writer(self) -> SummaryWriter:
        """The event file, opened with the first row."""
        from torch.utils.tensorboard import SummaryWriter

        purged = self.step + 1 if self.step else 0
        return SummaryWriter(str(self.folder), purge_step=purged, flush_secs=self.flush_secs)

    @override
    def metrics(self, row: Row) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        group = row["split"] if row["scope"] == "step" else f"{row['split']}_epoch"
        points = {f"{group}/{name}": value for name, value in row.items() if isinstance(value, float)}
        # One event for the row: `add_scalar`, with one event per metric, would take 1 % of a small training.
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()]
        self._add(Summary(value=values), row["step"])

    @override
    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        channels, height, width = grid.shape
        # `add_image` takes three times as long to compress.
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encode_png(grid))
        self._add(Summary(value=[Summary.Value(tag=kind, image=image)]), step)

    @override
    def hyperparameters(self, values: Row, metrics: Row) -> None:
        # Without an experiment summary TensorBoard shows the columns of all runs; with one, those of a single run.
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}
        _, start, end = hparams(plain, metrics)
        self._add(start)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value)
        self._add(end)

    @override
    def close(self) -> None:
        self._writer.close()

    def _add(self, summary: Summary, step: int | None = None) -> None:
        """Writes one event."""
        assert self._writer.file_writer is not None
        self._writer.file_writer.add_summary(summary, step)
