"""Batches read ahead in worker processes, in the order in which they will be asked for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vae_train.batch import Raw
from vae_train.data.storage.workers import results

if TYPE_CHECKING:
    from vae_train.data.storage.stored import Store


def read_ahead(
    store: Store, labels: Tensor | None, indices: Iterator[Tensor], workers: int, prefetch: int, pinned: bool
) -> Iterator[Raw]:
    """The images of every index.

    Args:
        store: is read in the worker processes.
        labels: `(N, F)` on the CPU, or None.
        indices: which images each batch has; may be endless.
        workers: how many processes; 0 reads in this one, when the next batch is asked for.
        prefetch: batches that each process is ahead by.
        pinned: whether the images are copied to pinned memory, from where a GPU fetches them by itself.

    Raises:
        RunError: a worker failed, for instance because the file became shorter.
    """
    loader = DataLoader(
        _Blocks(store, labels),
        batch_size=None,
        sampler=_Given(indices),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pinned,
        worker_init_fn=_leave_signals_to_the_parent,
    )
    return results(loader, advice=": try fewer loader.workers")


class _Blocks(Dataset):
    """Images by index."""

    def __init__(self, store: Store, labels: Tensor | None) -> None:
        self.store, self.labels = store, labels

    def __getitem__(self, index: Any) -> Raw:
        numbers = torch.from_numpy(index)
        return Raw(self.store.take(numbers), None if self.labels is None else self.labels[numbers])


class _Given(Sampler):
    """Indices as arrays: a tensor would travel to the worker through shared memory."""

    def __init__(self, indices: Iterator[Tensor]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[Any]:
        return (index.numpy() for index in self.indices)


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches the whole group: the parent saves, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
