"""The peak memory of this process. Imports nothing that would count."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_resident() -> float:
    """The largest resident set of this process so far, in MiB."""
    if STATUS.exists():
        # getrusage would count what the parent had when it started this process.
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def peak_of_own(function: Callable[[], object], seconds: float = 0.01) -> float:
    """Runs a function, and returns the largest memory of this process beside mapped files meanwhile, in MiB.

    Pages of mapped files count as resident, but the system takes them back when it needs memory. Only on Linux.

    Args:
        function: the function.
        seconds: time between two looks.
    """
    peak, done = _own(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(seconds):
            peak = max(peak, _own())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return peak


def _own() -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024
