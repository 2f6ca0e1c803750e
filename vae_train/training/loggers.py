"""Where figures and pictures of a run go: files always, TensorBoard unless it is switched off.

A logger has four methods. To write to another place, add a class with these and a YAML under `conf/logger/`.
"""

from __future__ import annotations

import csv
import json
import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor
from typing_extensions import override

from vae_train.plotting.png import encode_png, write_png
from vae_train.util.errors import RunError
from vae_train.util.ranges import PositiveInt

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

Row = dict[str, Any]


class Logger(Protocol):
    """Where a run writes to."""

    def scalars(self, row: Row) -> None:
        """A row of figures; it has "step", "epoch", "split" and "scope" ("step" or "epoch")."""
        ...

    def picture(self, kind: str, name: str, step: int, picture: Tensor) -> None:
        """A grid with shape `(C, height, width)` in [0, 1]; `kind` is "samples" or "reconstructions"."""
        ...

    def hyperparameters(self, values: Row, figures: Row) -> None:
        """What the run was, and how it ended."""
        ...

    def close(self) -> None:
        """Nothing follows."""
        ...


class Files(Logger):
    """metrics.jsonl and picture files in the run's folder; metrics.csv when the run ends.

    Args:
        folder: the run's folder.
        step: the step that the run goes on from; rows after it, of an earlier try, are cut.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.folder, self.path = folder, folder / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if row["step"] <= step] if step else []
        try:
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
            temporary.replace(self.path)
            self._file = self.path.open("a", buffering=1)
        except OSError as error:
            raise RunError(f"could not write {self.path}: {error.strerror}") from error

    def scalars(self, row: Row) -> None:
        """See `Logger.scalars`. A figure that is not finite is written as null, since JSON has no NaN."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._file.write(json.dumps(clean) + "\n")

    @override
    def picture(self, kind: str, name: str, step: int, picture: Tensor) -> None:
        folder = self.folder / kind
        folder.mkdir(exist_ok=True)
        write_png(folder / f"{name}.png", picture)

    def hyperparameters(self, values: Row, figures: Row) -> None:
        """They stand in config.yaml."""

    def close(self) -> None:
        """Writes metrics.csv."""
        self._file.close()
        rows = read_metrics(self.path)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (self.folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


class TensorBoard(Logger):
    """Curves, pictures and hyper-parameters for TensorBoard.

    Args:
        folder: where the event file goes.
        step: the step that the run goes on from; points after it are hidden.
        flush_secs: seconds after which the page sees what was written.
    """

    def __init__(self, folder: Path, step: int, flush_secs: PositiveInt) -> None:
        self.folder, self.step, self.flush_secs = folder, step, flush_secs

    @cached_property
    def _writer(self) -> SummaryWriter:
        """Opened with the first row, which comes when training is under way."""
        from torch.utils.tensorboard import SummaryWriter

        purged = self.step + 1 if self.step else None
        return SummaryWriter(str(self.folder), purge_step=purged, flush_secs=self.flush_secs)

    def scalars(self, row: Row) -> None:
        """See `Logger.scalars`: one curve per split and figure, over steps."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        group = row["split"] if row["scope"] == "step" else f"{row['split']}_epoch"
        figures = {f"{group}/{name}": value for name, value in row.items() if isinstance(value, float)}
        # One event for the row: with `add_scalar`, one for each figure, this would take 1 % of a small training.
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        self._add(Summary(value=values), row["step"])

    @override
    def picture(self, kind: str, name: str, step: int, picture: Tensor) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        channels, height, width = picture.shape
        # `add_image` compresses three times as long.
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encode_png(picture))
        self._add(Summary(value=[Summary.Value(tag=kind, image=image)]), step)

    def hyperparameters(self, values: Row, figures: Row) -> None:
        """See `Logger.hyperparameters`.

        Without an experiment summary TensorBoard shows the union of all runs' columns; with one, those of a single run.
        """
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}
        _, start, end = hparams(plain, figures)
        self._add(start)
        for name, value in figures.items():
            self._writer.add_scalar(name, value)
        self._add(end)

    @override
    def close(self) -> None:
        self._writer.close()

    def _add(self, summary: Summary, step: int | None = None) -> None:
        """Writes one event."""
        assert self._writer.file_writer is not None
        self._writer.file_writer.add_summary(summary, step)


class Silent(Logger):
    """Writes nowhere: for runs whose files are enough.

    Args:
        folder: not used.
        step: not used.
    """

    def __init__(self, folder: Path, step: int) -> None:
        pass

    @override
    def scalars(self, row: Row) -> None:
        pass

    @override
    def picture(self, kind: str, name: str, step: int, picture: Tensor) -> None:
        pass

    @override
    def hyperparameters(self, values: Row, figures: Row) -> None:
        pass

    @override
    def close(self) -> None:
        pass


class Tee(Logger):
    """Several loggers as one.

    Args:
        loggers: told everything, in this order.
    """

    def __init__(self, *loggers: Logger) -> None:
        self.loggers = loggers

    @override
    def scalars(self, row: Row) -> None:
        for logger in self.loggers:
            logger.scalars(row)

    @override
    def picture(self, kind: str, name: str, step: int, picture: Tensor) -> None:
        for logger in self.loggers:
            logger.picture(kind, name, step, picture)

    @override
    def hyperparameters(self, values: Row, figures: Row) -> None:
        for logger in self.loggers:
            logger.hyperparameters(values, figures)

    @override
    def close(self) -> None:
        for logger in self.loggers:
            logger.close()


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
