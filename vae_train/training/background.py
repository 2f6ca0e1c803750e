"""A thread that writes metrics, image grids and checkpoints while training continues."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self, override

from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers.base import Logger, Row
from vae_train.util.errors import Stopped, TrainingError


class Background:
    """A thread that runs submitted tasks in order, within a `with` block.

    An error of a task is raised by a later call, or at the end of the block, which waits for all tasks.

    PyTorch's operations use one core in this thread. Otherwise OpenMP would start a second set of threads, and with
    more threads than cores a step of a small network would take twice as long.

    Args:
        depth: largest number of waiting tasks. `submit` waits until there is room, so that memory stays bounded if the
            disk is slower than training.
    """

    def __init__(self, depth: int = 8) -> None:
        self.depth = depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._thread.submit(_use_one_core).result()
        torch.set_num_threads(torch.get_num_threads())  # new threads adopt the most recently set number
        self._waiting: deque[Future[None]] = deque()

    def submit(self, task: Callable[[], None]) -> None:
        """Queues a task."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self.depth):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(task))

    def flush(self) -> None:
        """Waits until all tasks are done."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Stopped):
                self.flush()
            elif kind is not KeyboardInterrupt:
                with suppress(Exception):  # the error of the block is reported, not that of an earlier task
                    self.flush()
        finally:
            # After a second Ctrl-C, tasks that have not started are dropped.
            self._thread.shutdown(cancel_futures=kind is KeyboardInterrupt)


def _use_one_core() -> None:
    """Limits PyTorch's operations in this thread to one core."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread's first call adopts the process's current number


class Output(Background):
    """Writes metrics, image grids and states of a training in the background, in call order.

    At the end of its `with` block all pending states are written, even after an error (but not a second Ctrl-C). At
    most two states are pending: the best one and a later one to resume from.

    Args:
        loggers: where metrics and image grids go.
        checkpoints: where states go.
        pause: seconds between two writes of states. If epochs are shorter, a state stays pending, and a
            newer one of the same name replaces it. This spares disks that many runs share.
        check: called before everything that is written; raises an error if it must not be written.
    """

    def __init__(
        self,
        loggers: Sequence[Logger],
        checkpoints: Checkpoints,
        pause: float = 0.0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.loggers, self.checkpoints, self.pause, self.check = loggers, checkpoints, pause, check
        self._due, self._started = -math.inf, time.monotonic()
        self._pending: list[tuple[list[str], dict[str, Any]]] = []
        """Pending states with their names, the oldest first."""

    @override
    def submit(self, task: Callable[[], None]) -> None:
        def checked() -> None:
            self.check()
            task()

        super().submit(checked)

    def metrics(self, row: Row) -> None:
        """Writes a row of metrics in the background, see `Logger.metrics`."""
        for logger in self.loggers:
            self.submit(partial(logger.metrics, row))

    def image_grid(self, kind: str, name: str, step: int, grid: Callable[[], Tensor]) -> None:
        """Assembles an image grid and writes it in the background, see `Logger.image_grid`."""

        def write() -> None:
            assembled = grid()
            for logger in self.loggers:
                logger.image_grid(kind, name, step, assembled)

        self.submit(write)

    def latents(self, step: int, kl: Tensor) -> None:
        """Writes the KL of every latent dimension `(D,)` in the background, see `Logger.latents`."""

        def write() -> None:
            for logger in self.loggers:
                logger.latents(step, kl.tolist())

        self.submit(write)

    def save(self, names: Sequence[str], state: Callable[[], dict[str, Any]]) -> None:
        """Writes a copy of `state` under every name, see `Checkpoints.save`, now or after the pause.

        Training waits for earlier tasks, so that copies do not pile up if the disk is slow.
        """
        due = time.monotonic() >= self._due
        if due:
            super().flush()
        older = [(rest, copy) for old, copy in self._pending if (rest := [name for name in old if name not in names])]
        self._pending = [*older, (list(names), deepcopy(state()))]
        if due:
            self._write()

    def is_due(self) -> bool:
        """Whether the pause has passed since the last write of states, or since the training began.

        Without a pause, states are only written at the end of an epoch.
        """
        return self.pause > 0 and time.monotonic() >= max(self._due, self._started + self.pause)

    def check_finite(self, names: Sequence[str], where: str) -> None:
        """Raises an error if metrics became NaN or infinite.

        Args:
            names: the metrics that are not finite.
            where: the step, for the message.

        Raises:
            TrainingError: names the metrics, the step, the last checkpoint and what to try.
        """
        if not names:
            return
        self.flush()
        saved = [self.checkpoints.path(name) for name in self.checkpoints.names()]
        good = f"the last good checkpoint is {saved[0]}" if saved else "there is no checkpoint yet"
        terms = [name for name in names if name in ("distortion", "rate")] or names
        raise TrainingError(
            f"{' and '.join(terms)} became NaN or infinite {where}; {good}. Try a lower lr=, "
            "learner.clip_norm=1, a warm-up (lr_schedule.warmup=1) or precision=float32"
        )

    @override
    def flush(self) -> None:
        """Writes every pending state and waits until everything is on the disk."""
        self._write()
        super().flush()

    def _write(self) -> None:
        pending, self._pending = self._pending, []
        for names, copy in pending:
            self.submit(partial(self.checkpoints.save, names, copy))
        self._due = time.monotonic() + self.pause


class NoOutput(Output):
    """The output of ranks other than 0, which write nothing."""

    @override
    def metrics(self, row: Row) -> None:
        pass

    @override
    def save(self, names: Sequence[str], state: Callable[[], dict[str, Any]]) -> None:
        pass

    @override
    def is_due(self) -> bool:
        return False

    @override
    def check_finite(self, names: Sequence[str], where: str) -> None:
        if names:
            raise TrainingError(f"{' and '.join(names)} became NaN or infinite {where}")
