"""The run's own files: metrics.jsonl, metrics.csv and image grids."""

import csv
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from torch import Tensor
from typing_extensions import override

from vae_train.plotting.png import write_png
from vae_train.training.loggers.base import Logger, Row, to_line
from vae_train.util.errors import RunError
from vae_train.util.files import appending, replacing


class Files(Logger):
    """metrics.jsonl and PNG files in the run's folder; metrics.csv when the run ends.

    Args:
        folder: the run's folder.
        step: the step at which the run resumes; later rows of an interrupted training are removed.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        super().__init__(folder, step)
        self.path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if row["step"] <= step] if step else []
        try:
            with replacing(self.path) as file:
                file.write("".join(json.dumps(row) + "\n" for row in kept).encode())
            self._file = appending(self.path)
        except OSError as error:
            raise RunError(f"could not write {self.path}: {error.strerror}") from error

    @override
    def metrics(self, row: Row) -> None:
        self._file.write(to_line(row) + "\n")

    @override
    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        folder = self.folder / kind
        folder.mkdir(exist_ok=True)
        write_png(folder / f"{name}.png", grid)

    @override
    def close(self) -> None:
        is_in_place = self.path.exists() and os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        self._file.close()
        if not is_in_place:  # the run was deleted, and another one may have its place
            return
        rows = read_metrics(self.path)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with replacing(self.folder / "metrics.csv") as file:
            writer = csv.DictWriter(TextIOWrapper(file, newline="", write_through=True), columns)
            writer.writeheader()
            writer.writerows(rows)


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, without damaged or incomplete lines."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def best_row(rows: Sequence[Row], epoch: int | None) -> Row:
    """The validation after an epoch; the last row if `epoch` is None or its row is lost."""
    chosen = [row for row in rows if (row.get("epoch"), row.get("split")) == (epoch, "valid")]
    return (chosen or list(rows) or [{"step": 0}])[-1]
