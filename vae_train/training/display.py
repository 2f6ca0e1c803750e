"""Shows the progress of a training: a bar on a terminal, lines elsewhere."""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm
from typing_extensions import Self

from vae_train.training.epochs import Epochs
from vae_train.util.text import duration, short_number

log = logging.getLogger("vae_train")

LINE_SECONDS = 30
"""Shortest time between two lines."""

DEFAULT_COLUMNS = 80
"""Width of a terminal that does not report its own."""

BAR_COLUMNS = 10


class Display:
    """Shows the progress of a training and the metrics of its last validation.

    On a terminal it is a bar that stays visible at the end. Elsewhere it is a line per epoch, at most one in 30 s, but
    always one for the first and the last epoch. Long epochs have several lines.

    Args:
        epochs: the epochs of the run.
        step: number of updates so far.
        file: output of the bar; None for standard error.
        clock: the time in seconds.
    """

    def __init__(
        self, epochs: Epochs, step: int, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.epochs, self.file, self.clock = epochs, file or sys.stderr, clock
        self._total, self._step, self._first_step = epochs.last_step, step, step
        self._started = self._last_line = clock()
        self._latest, self._best, self._is_first = "", "", True
        # tqdm hides the bar on a terminal that reports no height.
        size = {"ncols": self._columns(), "nrows": 20}
        hidden = not self.file.isatty()
        self._bar = tqdm(total=self._total, initial=step, file=self.file, disable=hidden, smoothing=0.05, **size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._show("{elapsed}")  # stays visible
        self._bar.close()

    def advance(self, step: int) -> None:
        """Moves to `step` updates."""
        self._step = step
        self._bar.update(step - self._bar.n)

    def steps(self, row: Mapping[str, float]) -> None:
        """Shows the metrics of the last training steps, averaged over their images."""
        text = describe("train", row)
        if not self._best:  # no validation yet
            self._latest = text
        self._show()
        if self._is_due():
            self._log(f"step {self._step:,} of {self._total:,} · {text}", row)

    def epoch(self, train: Mapping[str, float], valid: Mapping[str, float] | None, best: str, last: bool) -> None:
        """Shows the metrics of a finished epoch, averaged over its images.

        Args:
            train: metrics of its training steps.
            valid: metrics of its validation; None without one.
            best: the best validation so far; empty without one.
            last: whether the run ends with this epoch.
        """
        self._best, self._latest = best, describe("train", train) if valid is None else describe("valid", valid)
        if "codes_used" in train:
            self._latest += f" · {train['codes_used']:,.0f} codes used, perplexity {train['code_perplexity']:,.1f}"
        self._show()
        if last or self._is_first or self._is_due():
            self._log(self._latest, train)
        self._is_first = False

    @property
    def _epoch(self) -> str:
        return f"epoch {self.epochs.of(max(self._step - 1, 0))}/{self.epochs.total}"

    def _is_due(self) -> bool:
        return self.clock() - self._last_line >= LINE_SECONDS

    def _log(self, text: str, row: Mapping[str, float]) -> None:
        """Logs a line, unless there is a bar."""
        if not self._bar.disable:
            return
        self._last_line = self.clock()
        parts = [self._epoch, text, f"{row['images_per_second']:,.0f} images/s"]
        if self._step < self._total:
            seconds_per_step = (self._last_line - self._started) / max(self._step - self._first_step, 1)
            parts.append(f"{duration(seconds_per_step * (self._total - self._step))} left")
        log.info("%s", " · ".join(parts))

    def _show(self, clock: str = "{remaining} left") -> None:
        """Draws the bar with as much text as fits the terminal."""
        if self._bar.disable:
            return
        self._bar.ncols = self._columns()
        epoch = self._epoch
        latest = self._latest.split(" · ")
        layouts: tuple[tuple[list[str], list[str]], ...] = (
            ([epoch, "step {n_fmt}/{total_fmt}"], [*latest, self._best, clock]),
            ([epoch], [*latest, self._best, clock]),
            ([epoch], [latest[0], self._best, clock]),
            ([epoch], [latest[0], clock]),
            ([epoch], [clock]),
            ([epoch], []),
        )
        widest = {"n_fmt": self._total, "total_fmt": self._total, "remaining": "00:00:00", "elapsed": "00:00:00"}
        for before, after in layouts:
            texts = [" · ".join(filter(None, parts)) for parts in (before, after)]
            if len("".join(texts).format(**widest)) + BAR_COLUMNS + 4 < self._bar.ncols:
                break
        self._bar.bar_format = f"{texts[0]} |{{bar:{BAR_COLUMNS}}}| {texts[1]}"
        self._bar.refresh()

    def _columns(self) -> int:
        """Width of the terminal in characters."""
        try:
            return os.get_terminal_size(self.file.fileno()).columns or DEFAULT_COLUMNS
        except (OSError, ValueError):
            return DEFAULT_COLUMNS


def describe(split: str, row: Mapping[str, float]) -> str:
    """The most important metrics of a row, in nats."""
    names = {"elbo": f"{split} ELBO"} if "elbo" in row else {"loss": f"{split} loss"}
    names |= {"rate": "rate", "distortion": "distortion"}
    return " · ".join(f"{title} {short_number(row[name])}" for name, title in names.items() if name in row)
