"""Handles the signals that stop a run."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

SAME_SIGNAL_WINDOW_S = 1.0
"""Seconds within which a second signal counts as the same request. `timeout` and cluster schedulers send a signal to
both a process and its group."""


class StopRequest:
    """Within its `with` block Ctrl-C and SIGTERM set `signal` instead of ending the program; a second signal ends it.

    Outside the main thread, where handlers cannot be set, it does nothing.

    Args:
        window_s: seconds within which a second signal counts as the same request.
    """

    def __init__(self, window_s: float = SAME_SIGNAL_WINDOW_S) -> None:
        self.window_s = window_s
        self.signal: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > self.window_s:
            raise KeyboardInterrupt


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
