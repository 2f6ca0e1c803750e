"""Work that is done beside training: pictures and checkpoints are written by a thread."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers.base import Logger, Row
from vae_train.util.errors import RunError, Stopped


class Background:
    """One thread that does its work in the order in which it is given, within a `with` block.

    An error of the work is raised by a later call, or at the end of the block, which waits for everything.

    PyTorch's operations use one core there. Else OpenMP would have a second set of threads, more than there are cores:
    then they sleep between operations, and every step of a small network would take twice as long.

    Args:
        depth: pieces that may wait. With more, `submit` waits until there is room, so that memory stays bounded where
            the disk is slower than training.
    """

    def __init__(self, depth: int = 8) -> None:
        self.depth = depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._thread.submit(_use_one_core).result()
        torch.set_num_threads(torch.get_num_threads())  # what a thread says holds for those that come after, too
        self._waiting: deque[Future[None]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        """Does `work` behind what was submitted before."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self.depth):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(work))

    def flush(self) -> None:
        """Waits until everything is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None or issubclass(kind, Stopped):
                self.flush()
        finally:
            # A second Ctrl-C does not wait for what has not begun.
            self._thread.shutdown(cancel_futures=kind is KeyboardInterrupt)


def _use_one_core() -> None:
    """Says so for this thread."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread's first question or operation takes what the process says by then


class Output:
    """What a training leaves behind, written in the background and in order: figures before the state that follows.

    At the end of its `with` block, within that of `background`, every state that waits is written, also after an error
    (but not at a second Ctrl-C). No more than two wait: the best one, and a later one to go on from.

    Args:
        logger: where figures and pictures go.
        checkpoints: where states go.
        background: what writes.
        pause: seconds from the beginning of one writing of states to that of the next. Where epochs are shorter, a
            state waits, and a newer one of its name takes its place: a disk that a thousand runs share is not asked for
            every epoch of theirs.
    """

    def __init__(self, logger: Logger, checkpoints: Checkpoints, background: Background, pause: float = 0.0) -> None:
        self.logger, self.checkpoints, self.background, self.pause = logger, checkpoints, background, pause
        self._due = -math.inf
        self._waiting: list[tuple[list[str], dict[str, Any]]] = []
        """Names and the state that they shall have, the oldest first."""

    def metrics(self, row: Row) -> None:
        """Writes a row of metrics in the background, see `Logger.metrics`."""
        self.background.submit(lambda: self.logger.metrics(row))

    def image_grid(self, kind: str, name: str, step: int, grid: Callable[[], Tensor]) -> None:
        """Assembles an image grid and writes it in the background, see `Logger.image_grid`."""
        self.background.submit(lambda: self.logger.image_grid(kind, name, step, grid()))

    def save(self, names: Sequence[str], state: Callable[[], dict[str, Any]]) -> None:
        """Writes a copy of `state` under every name, see `Checkpoints.save`, now or after the pause.

        Training waits for what was handed over before, so that copies do not pile up where the disk is slow.
        """
        due = time.monotonic() >= self._due
        if due:
            self.background.flush()
        older = [(left, copy) for held, copy in self._waiting if (left := [name for name in held if name not in names])]
        self._waiting = [*older, (list(names), deepcopy(state()))]
        if due:
            self._write()

    def check_finite(self, names: Sequence[str], where: str) -> None:
        """Ends the run if metrics became NaN or infinite.

        Args:
            names: those metrics, if any.
            where: at which step.

        Raises:
            RunError: names the step, the terms, the last checkpoint and what to try.
        """
        if not names:
            return
        self.finish()
        saved = self.checkpoints.names()
        good = (
            f"the last good checkpoint is {self.checkpoints.path(saved[0])}" if saved else "there is no checkpoint yet"
        )
        terms = [name for name in names if name in ("distortion", "rate")] or names
        raise RunError(
            f"{' and '.join(terms)} became NaN or infinite {where}; {good}. Try a lower lr=, "
            "learner.clip_norm=1, a warm-up (lr_schedule.warmup=1) or precision=float32"
        )

    def finish(self) -> None:
        """Writes every state that waits, and returns when everything is on the disk."""
        self._write()
        self.background.flush()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for names, copy in waiting:
            self.background.submit(partial(self.checkpoints.save, names, copy))
        self._due = time.monotonic() + self.pause

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None or issubclass(kind, Stopped):
            self._write()
        elif kind is not KeyboardInterrupt:  # a second Ctrl-C does not wait
            with suppress(Exception):  # of an earlier work: `error` is what is told
                self._write()
