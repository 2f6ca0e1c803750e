"""What the processes of a DataLoader give, and one line where one of them fails or dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import DataLoader

from vae_train.util.errors import RunError
from vae_train.util.text import first_line


def results(loader: DataLoader, advice: str = "") -> Iterator[Any]:
    """Yields what the loader yields.

    Args:
        loader: with or without processes.
        advice: what to try where memory ran out.

    Raises:
        RunError: something could not be read, or a process died.
    """
    found = _started(loader)
    while True:
        try:
            item = next(found)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # EOFError: it died while a batch was handed over
            raise RunError(f"the data could not be read: {_death(found, advice) or first_line(error)}") from error
        yield item


def _started(loader: DataLoader) -> Iterator[Any]:
    """The loader with its processes, but without PyTorch's handler for the death of one of them.

    That raises wherever the program is just then, within a step or a checkpoint; the next item finds out as well.
    PyTorch sets it once per process, with the first loader: all of ours are started here.
    """
    if not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    found = iter(loader)
    if signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return found


def _death(found: Any, advice: str) -> str | None:
    """How a process died, which PyTorch and the system report in several ways; None where none did."""
    workers = {worker.sentinel: worker for worker in getattr(found, "_workers", ())}
    dead = [workers[sentinel] for sentinel in wait(list(workers), timeout=1)] if workers else []
    if not dead:
        return None
    dead[0].join(timeout=1)  # a process closes its files a moment before it has an exit code
    pid, code = dead[0].pid, dead[0].exitcode
    if code is None or code >= 0:
        return f"worker process {pid} ended with exit code {code}"
    return f"worker process {pid} was killed by {signal.Signals(-code).name}, as happens where memory runs out{advice}"
