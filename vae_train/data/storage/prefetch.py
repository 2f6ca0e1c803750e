"""Batches that worker processes read in advance, in the order of their use."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vae_train.batch import Raw
from vae_train.data.storage.stored import StoredImages
from vae_train.data.storage.workers import results


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
        sampler=_ArrayIndices(indices),
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


class _ArrayIndices(Sampler):
    """Indices as arrays: a tensor would travel to the worker through shared memory."""

    def __init__(self, indices: Iterator[Tensor]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[Any]:
        return (index.numpy() for index in self.indices)


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches the whole process group: the parent saves, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
