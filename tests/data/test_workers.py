"""What is said where a process that reads data fails or dies, in whichever way PyTorch finds out."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal

import pytest
import torch
from torch.utils.data import DataLoader

from vae_train.data.storage.loader import results
from vae_train.util.errors import RunError
from vae_train.util.text import first_line

WAYS = [RuntimeError("DataLoader worker exited unexpectedly"), ConnectionResetError(104, "reset"), EOFError()]
"""An exit that was looked for, a connection that broke, and one that closed while a batch was handed over."""


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


class Broken:
    """A loader that raises after its first item, as PyTorch's does when a process of it died or failed."""

    def __init__(self, error, workers):
        self.error, self._workers, self.given = error, workers, False

    def __iter__(self):
        return self

    def __next__(self):
        if self.given:
            raise self.error
        self.given = True
        return torch.zeros(1)


@pytest.mark.parametrize("error", WAYS, ids=lambda error: type(error).__name__)
def test_a_death_is_said_however_it_shows(error):
    worker = multiprocessing.get_context("fork").Process(target=killed)
    worker.start()
    worker.join(60)
    found = results(Broken(error, [worker]), ": try fewer")
    next(found)
    with pytest.raises(RunError, match=f"worker process {worker.pid} was killed by SIGKILL, .*: try fewer$"):
        next(found)


@pytest.mark.parametrize("error", WAYS, ids=lambda error: type(error).__name__)
def test_where_nobody_died_the_error_speaks(error):
    found = results(Broken(error, []))
    next(found)
    with pytest.raises(RunError, match=f"^the data could not be read: {re.escape(first_line(error))}$"):
        next(found)


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_is_given_in_order_and_the_handler_of_signals_stays(workers):
    before = signal.getsignal(signal.SIGCHLD)
    given = results(DataLoader(range(7), batch_size=None, num_workers=workers))
    assert [int(item) for item in given] == list(range(7))
    assert signal.getsignal(signal.SIGCHLD) is before


class Dying:
    """A process whose files are closed before the system has its exit code."""

    pid, exitcode = 7, None

    def __init__(self):
        self.sentinel, end = os.pipe()
        os.close(end)

    def join(self, timeout):
        self.exitcode = -signal.SIGKILL


def test_a_process_that_is_still_dying_is_waited_for():
    worker = Dying()
    found = results(Broken(WAYS[0], [worker]))
    next(found)
    with pytest.raises(RunError, match=r"worker process 7 was killed by SIGKILL, possibly because memory ran out$"):
        next(found)
    os.close(worker.sentinel)
