"""What a training spends on logging, pictures and checkpoints, counted in the training itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from vae_train.training.background import Background, Output
from vae_train.training.meter import Meter
from vae_train.training.trainer import Trainer

WRITING = (
    (Trainer, "_check"),
    (Trainer, "_draw"),
    (Meter, "window"),
    (Meter, "epoch"),
    (Output, "scalars"),
    (Output, "save"),
    (Output, "__exit__"),
    (Background, "__exit__"),
)
"""What `Trainer.fit` does besides steps and validation; none of these calls another."""


class Account:
    """Seconds so far."""

    def __init__(self) -> None:
        self.waited = 0.0
        """Of the thread that trains: what it does for the others, and what it waits for them."""
        self.beside = 0.0
        """Of processor time of threads that began and ended meanwhile."""


@contextmanager
def accounted(wait: Callable[[], None]) -> Iterator[Account]:
    """Counts within a `with` block.

    Args:
        wait: waits for the device, whose steps are not what is counted.
    """
    account = Account()

    def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            wait()
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                account.waited += time.perf_counter() - start

        return call

    def outlived(function: Callable[[Any], None]) -> Callable[[Any], None]:
        def run(thread: Any) -> None:
            try:
                function(thread)
            finally:
                account.beside += time.thread_time()

        return run

    with ExitStack() as stack:
        for owner, name in WRITING:
            stack.enter_context(patch.object(owner, name, clocked(getattr(owner, name))))
        # Not `run`, which TensorBoard's thread has its own of.
        begin = "_bootstrap_inner"
        stack.enter_context(patch.object(threading.Thread, begin, outlived(getattr(threading.Thread, begin))))
        yield account
