"""Decides where the pixels of a data set are stored, and prefetches them with worker processes."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vae_train.batch import Raw
from vae_train.data.storage.stored import Splits, StoredImages
from vae_train.util.errors import RunError
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from vae_train.util.text import first_line, size

GIB = 2**30


@dataclass(frozen=True)
class Loader:
    """Stores a data set on the training device if it fits, and streams it there otherwise.

    Worker processes prefetch streamed batches from host memory or a memory-mapped file. Batch
    i is the same function of (seed, i) in both cases.

    Args:
        storage: "device" stores all pixels on the training device; "host" leaves them in host memory or in their file;
            "auto" is "device" for at most `memory`.
        memory: GiB of pixels on the training device; None for half of the free memory on CUDA, and on a
            CPU for 1 GiB of pixels that are not in memory already, since a mapped file is as fast.
        workers: prefetching processes for pixels that are not on the device; 0 reads within the training process.
        prefetch: batches that each worker prefetches.
    """

    storage: Literal["auto", "device", "host"]
    memory: PositiveFloat | None
    workers: NonNegativeInt
    prefetch: PositiveInt

    def place(self, splits: Splits, device: torch.device) -> tuple[Splits, str]:
        """Moves the splits to their place; also returns a description of the place for the log."""
        nbytes = sum(images.store.nbytes for images in splits.values())
        locations = {images.store.location for images in splits.values()}
        if self.keeps_on_device(nbytes, device, in_memory=locations == {"memory"}):
            moved = {name: images.to(device) for name, images in splits.items()}
            return moved, f"{size(nbytes)} of pixels on {device}"
        if "computed" in locations:
            where = f"computed on {device} on demand"
        else:
            place = "a mapped file" if "file" in locations else "host memory"
            where = f"in {place}, prefetched by {self.workers} workers"
        streamed = {name: images.streamed_to(device) for name, images in splits.items()}
        return streamed, f"{size(nbytes)} of pixels, {where}"

    def keeps_on_device(self, nbytes: int, device: torch.device, *, in_memory: bool) -> bool:
        """Whether `nbytes` of pixels are stored on `device`; `in_memory` if this process already has them."""
        if self.storage != "auto":
            return self.storage == "device"
        if self.memory is not None:
            return nbytes <= self.memory * GIB
        if device.type == "cuda":
            return nbytes <= torch.cuda.mem_get_info(device)[0] / 2
        return in_memory or nbytes <= GIB

    def prefetched(self, images: StoredImages, indices: Iterator[Tensor], *, pinned: bool) -> Iterator[Raw]:
        """Yields the images of each index, prefetched by the worker processes.

        Args:
            images: the images to read.
            indices: the indices of each batch, `(B,)` on the CPU; may be endless.
            pinned: whether batches are copied to pinned memory for asynchronous transfer to a GPU.

        Raises:
            RunError: a worker failed, for instance because the file was truncated.
        """
        loader = DataLoader(
            _Batches(images),
            batch_size=None,
            sampler=map(Tensor.numpy, indices),  # type: ignore[arg-type]  # a tensor would go through shared memory
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            pin_memory=pinned,
            worker_init_fn=_leave_signals_to_the_parent,
        )
        return results(loader, advice=": try fewer loader.workers")


DEFAULT_LOADER = Loader("auto", memory=None, workers=2, prefetch=2)
"""The defaults of `conf/train.yaml`."""


class _Batches(Dataset):
    """Batches by the indices of their images."""

    def __init__(self, images: StoredImages) -> None:
        self.images = images

    def __getitem__(self, index: Any) -> Raw:
        return self.images.take(torch.from_numpy(index))


def _leave_signals_to_the_parent(_: int) -> None:
    """Ignores Ctrl-C, which reaches the whole process group: the parent saves first, then ends its workers."""
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
    try:
        yield from items
    except (RuntimeError, OSError, EOFError) as error:  # EOFError: a worker died while sending a batch
        raise RunError(f"the data could not be read: {_death(items, advice) or first_line(error)}") from error


def _started(loader: DataLoader) -> Iterator[Any]:
    """Starts the loader's processes, without PyTorch's signal handler for dead workers.

    The handler raises at an arbitrary point, such as within a step or a checkpoint. The next item raises as
    well. PyTorch sets it once per process, with the first loader, and all loaders are started here.
    """
    if not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    items = iter(loader)
    if signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return items


def _death(items: Any, advice: str) -> str | None:
    """Describes how a worker process died, which PyTorch reports in several ways; None if all are alive."""
    workers = {worker.sentinel: worker for worker in getattr(items, "_workers", ())}
    dead = [workers[sentinel] for sentinel in wait(list(workers), timeout=1)] if workers else []
    if not dead:
        return None
    dead[0].join(timeout=1)  # the exit code may be available slightly later
    pid, code = dead[0].pid, dead[0].exitcode
    if code is None or code >= 0:
        return f"worker process {pid} ended with exit code {code}"
    return f"worker process {pid} was killed by {signal.Signals(-code).name}, possibly because memory ran out{advice}"
