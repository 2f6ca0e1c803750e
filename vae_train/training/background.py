"""Work that is done beside training: pictures and checkpoints are written by a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from vae_train.errors import Stopped
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers import Logger, Row


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

    Args:
        logger: where figures and pictures go.
        checkpoints: where states go.
        background: what writes.
    """

    def __init__(self, logger: Logger, checkpoints: Checkpoints, background: Background) -> None:
        self.logger, self.checkpoints, self.background = logger, checkpoints, background

    def scalars(self, row: Row) -> None:
        """See `Logger.scalars`."""
        self.background.submit(lambda: self.logger.scalars(row))

    def picture(self, kind: str, name: str, step: int, picture: Callable[[], Tensor]) -> None:
        """See `Logger.picture`; the picture itself is put together in the background too."""
        self.background.submit(lambda: self.logger.picture(kind, name, step, picture()))

    def save(self, names: Sequence[str], state: Callable[[], dict[str, Any]]) -> None:
        """Writes a copy of `state` under every name, see `Checkpoints.save`.

        There is one such copy at a time: where the disk is slow, training waits for the one before.
        """
        self.background.flush()
        copy = deepcopy(state())
        self.background.submit(lambda: self.checkpoints.save(names, copy))
