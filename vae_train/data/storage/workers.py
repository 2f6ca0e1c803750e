"""The results of a DataLoader's worker processes, and a one-line error if one of them fails or dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import DataLoader

from vae_train.util.errors import RunError
from vae_train.util.text import first_line


def results(loader: DataLoader, advice: str = "") -> Iterator[Any]:
    """Yields the items of a loader.

    Args:
        loader: with or without worker processes.
        advice: what to try if memory ran out.

    Raises:
        RunError: an item could not be read, or a process died.
    """
    items = _started(loader)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # EOFError: a worker died while it sent a batch
            raise RunError(f"the data could not be read: {_death(items, advice) or first_line(error)}") from error
        yield item


def _started(loader: DataLoader) -> Iterator[Any]:
    """Starts the loader's processes, without PyTorch's signal handler for the death of one of them.

    The handler raises wherever the program is at that moment, within a step or a checkpoint; the next item raises as
    well. PyTorch sets it once per process, with the first loader, and all of ours are started here.
    """
    if not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    items = iter(loader)
    if signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return items


def _death(items: Any, advice: str) -> str | None:
    """How a worker process died, which PyTorch and the system report in several ways; None if none did."""
    workers = {worker.sentinel: worker for worker in getattr(items, "_workers", ())}
    dead = [workers[sentinel] for sentinel in wait(list(workers), timeout=1)] if workers else []
    if not dead:
        return None
    dead[0].join(timeout=1)  # a process closes its files a moment before it has an exit code
    pid, code = dead[0].pid, dead[0].exitcode
    if code is None or code >= 0:
        return f"worker process {pid} ended with exit code {code}"
    return f"worker process {pid} was killed by {signal.Signals(-code).name}, as happens where memory runs out{advice}"
