"""Handles the signals that stop a run."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from vae_train.util.errors import Stopped

log = logging.getLogger("vae_train")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

SAME_SIGNAL_WINDOW_S = 1.0
"""Seconds within which a second signal counts as the same request. `timeout` and cluster schedulers send a signal to
both a process and its group."""


class StopRequest:
    """Within its `with` block Ctrl-C and SIGTERM set `signal` instead of ending the program; a second signal ends it.

    Outside the main thread, where handlers cannot be set, it does nothing.

    Args:
        window_s: seconds within which a second signal counts as the same request.
        largest: the largest of a number of all ranks, if several ranks have to stop after the same step.
    """

    def __init__(self, window_s: float = SAME_SIGNAL_WINDOW_S, largest: Callable[[int], int] | None = None) -> None:
        self.window_s, self.largest = window_s, largest
        self._received: int | None = None
        self._agreed = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    @property
    def signal(self) -> int | None:
        """The signal that arrived; at any rank, if they have agreed on it; None without one."""
        return self._received if self.largest is None else self._agreed or None

    def agree(self) -> None:
        """Finds out whether a signal has arrived at any rank; all of them call it after the same step."""
        if self.largest is not None:
            self._agreed = self.largest(self._received or 0)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > self.window_s:
            raise KeyboardInterrupt


@contextmanager
def time_limit(hours: float | None) -> Iterator[None]:
    """Stops this process after a time within the block, as SIGTERM does; None for never.

    Outside of a `StopRequest` it raises `Stopped` in the main thread.
    """
    if hours is None:
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number, "interrupted")

    def end() -> None:
        log.info("stopping, since max_hours=%g is over", hours)
        os.kill(os.getpid(), signal.SIGTERM)

    before, timer = signal.signal(signal.SIGTERM, stop), threading.Timer(hours * 3600, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


@contextmanager
def preserve_signal_handlers() -> Iterator[None]:
    """Restores the signal handlers after the block, even if a library changed them without Python's knowledge.

    LLVM, which compiles for GPUs, installs its own handlers in front of the existing ones. While one of them runs, a
    second signal ends the process.
    """
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)
