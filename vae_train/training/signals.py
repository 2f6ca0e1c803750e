"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)

TOGETHER = 1.0
"""Seconds within which a signal that comes again is the same request: `timeout` and the schedulers of clusters send it
to a process and to its group."""


class StopRequest:
    """Within the `with` block Ctrl-C and SIGTERM set `signal` instead of ending the program; a second one ends it.

    Outside the main thread, where handlers cannot be set, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > TOGETHER:
            raise KeyboardInterrupt


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Signals mean after the block what they meant before it, whatever a library did behind Python's back.

    LLVM, which compiles for GPUs, puts handlers of its own before those that it finds, and while one of these runs a
    second signal ends the process.
    """
    found = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in found.items():
                if handler is not None:
                    signal.signal(number, handler)
