"""Batches of a split as a function of (seed, batch number).

The order of the images is an endless stream of permutations, one per epoch.
"""

import time
from collections.abc import Iterator
from itertools import count as count_from

import torch
from torch import Tensor

from vae_train.batch import Batch, Fetched, Images, Raw
from vae_train.rng import BlockRng, Rng, Rows, generator

MAX_EVALUATED_VALUES = 512 * 64 * 64 * 3
"""Values of the images of one batch of an evaluation, so that large images do not need more memory than small ones."""


class Stream:
    """The endless stream of training batches, taken from consecutive permutations of all images.

    Batch i has the stream's images i·B to (i + 1)·B. It is always full, may span two epochs, and is
    a function of (seed, i) wherever the images are stored.

    Args:
        images: the training split.
        batch_size: B, images in a batch; at most the number of images.
        seed: the run's seed.
        device: the training device, where random bits and noise are generated.
        rows: the images of every batch that this process takes; None for all of them.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        rows: Rows | None = None,
    ) -> None:
        if batch_size > len(images):
            raise ValueError(f"a batch of {batch_size:,} cannot be filled from {len(images):,} images")
        self.images, self.batch_size, self.seed, self.device = images, batch_size, seed, torch.device(device)
        self.rows = rows
        self.waited = 0.0
        """Time in seconds spent waiting for images that are not on the training device."""
        self._orders = _Orders(len(images), seed, self.device if images.resident else torch.device("cpu"))
        self._prefetched: Iterator[Raw] | None = None
        self._next = -1

    def batch(self, step: int) -> Batch:
        """Batch number `step`."""
        return self.images.finish(self.raw(step), self.noise("data", step))

    def noise(self, stream: str, step: int) -> Rng:
        """The noise of a stream for the images of batch number `step`."""
        noise = Rng(self.seed, stream, step, device=self.device)
        return noise if self.rows is None else noise.part(self.rows)

    @property
    def num_taken(self) -> int:
        """Number of images of a batch that this process takes."""
        return self.batch_size if self.rows is None else self.rows.stop - self.rows.start

    def raw(self, step: int) -> Raw:
        """The stored images of batch number `step`, on the training device."""
        if self.images.resident:
            return self.images.gather(self.index(step))
        begin = time.perf_counter()
        if self._prefetched is None or self._next != step:
            orders, size, taken = self._orders, self.batch_size, self.num_taken  # not `self`, see `close`
            first = 0 if self.rows is None else self.rows.start
            self._prefetched = self.images.prefetch(orders.cut(i * size + first, taken) for i in count_from(step))
        self._next = step + 1
        raw = next(self._prefetched)
        self.waited += time.perf_counter() - begin
        return raw

    def index(self, step: int, count: int = 1) -> Tensor:
        """The indices of the images that this process takes of `count` batches, `(count · B,)` if it takes all.

        Args:
            step: number of the first batch.
            count: number of batches; at most one epoch.
        """
        index = self._orders.cut(step * self.batch_size, count * self.batch_size)
        if self.rows is None:
            return index
        return index.view(count, self.batch_size)[:, self.rows.start : self.rows.stop].flatten()

    def close(self) -> None:
        """Ends the worker processes, as the deletion of the stream does."""
        self._prefetched = None


class _Orders:
    """The stream of permutations, which are generated on the CPU, so that they are the same for every device."""

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.count, self.seed, self.device = count, seed, device
        self._pass = -2  # not a pass, nor the predecessor of the first
        self._orders = torch.empty(0, dtype=torch.int64, device=device)

    def cut(self, start: int, length: int) -> Tensor:
        """Positions `start` to `start` + `length` of the stream; `length` is at most `count`."""
        number, inside = divmod(start, self.count)
        if number != self._pass:
            following = self._orders[self.count :] if number == self._pass + 1 else self._order(number)
            self._orders = torch.cat([following, self._order(number + 1)])
            self._pass = number
        return self._orders[inside : inside + length]

    def _order(self, number: int) -> Tensor:
        order = torch.randperm(self.count, generator=generator(self.seed, "order", number))
        if self.device.type == "cuda":
            order = order.pin_memory()  # otherwise the copy waits for the device
        return order.to(self.device, non_blocking=True)


def evaluation_batches(
    images: Fetched,
    batch_size: int,
    device: torch.device | str = "cpu",
    stream: str = "data",
    batches: slice = slice(None),
) -> Iterator[tuple[int, Batch]]:
    """Yields all images in order, with the index of each batch's first image; the last batch may be smaller.

    Random bits and dequantisation noise are a function of (stream, image index), so they are the same in every
    evaluation.

    Args:
        images: the images.
        batch_size: images per batch; fewer if they are large, see `MAX_EVALUATED_VALUES`.
        device: where the noise is generated.
        stream: the purpose of the noise.
        batches: the batches to yield.
    """
    if len(images):
        values = evaluation_batch(images, 0, 1, device, stream).x.numel()
        batch_size = min(batch_size, max(1, MAX_EVALUATED_VALUES // values))
    for start in range(0, len(images), batch_size)[batches]:
        yield start, evaluation_batch(images, start, min(batch_size, len(images) - start), device, stream)


def evaluation_batch(images: Fetched, start: int, count: int, device: torch.device | str, stream: str) -> Batch:
    """Images `start` to `start` + `count`, with the noise that they have in `evaluation_batches`."""
    index = torch.arange(start, start + count, device=device)
    return images.fetch(index, BlockRng(0, stream, start, device=device))
