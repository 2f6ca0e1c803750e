"""What worker processes read in advance, in order, and a one-line error if one of them fails or dies."""

import signal
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vae_train.batch import Raw
from vae_train.data.storage.stored import StoredImages
from vae_train.util.errors import RunError
from vae_train.util.text import first_line


def prefetched(
    images: StoredImages, indices: Iterator[Tensor], *, workers: int, prefetch: int, pinned: bool
) -> Iterator[Raw]:
    """Yields the images of each index.

    Args:
        images: what the worker processes read.
        indices: the image numbers of each batch, `(B,)` on the CPU; may be endless.
        workers: number of processes; 0 reads in this process, when the next batch is needed.
        prefetch: batches that each process reads in advance.
        pinned: whether batches are copied to pinned memory, from which a GPU copies asynchronously.

    Raises:
        RunError: a worker failed, for instance because the file became shorter.
    """
    loader = DataLoader(
        _Batches(images),
        batch_size=None,
        sampler=map(Tensor.numpy, indices),  # type: ignore[arg-type]  # a tensor would travel through shared memory
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pinned,
        worker_init_fn=_leave_signals_to_the_parent,
    )
    return results(loader, advice=": try fewer loader.workers")


class _Batches(Dataset):
    """Batches by their image numbers."""

    def __init__(self, images: StoredImages) -> None:
        self.images = images

    def __getitem__(self, index: Any) -> Raw:
        return self.images.take(torch.from_numpy(index))


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches the whole process group: the parent saves, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


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
