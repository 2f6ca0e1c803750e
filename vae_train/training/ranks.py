"""The processes that train one model together, each with some images of every batch.

Every process ("rank") has the whole model. A step adds up the gradients of all ranks, so that their parameters stay
equal. `Ranks` is a single process; `vae_train.training.distributed.ProcessRanks` are several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import WHOLE, WholeBatch
from vae_train.rng import Rng, Rows
from vae_train.training.gradients import accumulate, with_layout_of
from vae_train.training.step import Reports, Scalars, Statistics, StepInputs, cuts


class Ranks:
    """A single process, which has all images; the base class of several."""

    rank = 0
    """The number of this process; 0 alone writes files and messages."""
    size = 1
    """The number of processes."""
    local_rank = 0
    """The number of this process among those of its machine."""
    local_size = 1
    """The number of processes of its machine."""

    def rows(self, batch_size: int) -> Rows | None:
        """The images of a batch that this process takes; None for all of them."""
        if self.size == 1:
            return None
        start, stop = cuts(batch_size, self.size)[self.rank : self.rank + 2]
        return Rows(start, stop, batch_size)

    def use(self, device: torch.device) -> None:
        """Connects the ranks for tensors of a device."""

    def started(self, hint: str) -> None:
        """Marks the beginning of the training: from now on the other ranks wait for gradients.

        Args:
            hint: how to go on if a rank is lost, for messages.
        """

    def add(self, x: Tensor) -> Tensor:
        """The sum of `x` over all processes, in place; the same bits on all of them."""
        return x

    def gather(self, x: Tensor) -> Tensor:
        """`x` of all processes, `(size, *shape)`; all shapes must be equal."""
        return x[None]

    def broadcast(self, value: Any) -> Any:
        """Any object of rank 0; the other ranks pass anything."""
        return value

    def largest(self, value: int) -> int:
        """The largest of an integer of all processes."""
        return value


ALONE = Ranks()


class Summation:
    """Adds the reports of the parts of a batch: microbatches, and the images of other ranks.

    Args:
        ranks: the processes that share a batch.
        shards: parts whose sums are added in the order of the images, so that results do not depend on the number of
            processes; a multiple of it. None for the fastest order.
        parameters: the parameters, whose memory layout the gradients have.
    """

    def __init__(self, ranks: Ranks, shards: int | None, parameters: list[nn.Parameter]) -> None:
        self.ranks, self.shards, self.parameters = ranks, shards, parameters

    def parts(self, inputs: StepInputs, grad_accumulation: int) -> Iterator[tuple[StepInputs, float]]:
        """The parts of this rank, with their share of the whole batch."""
        if self.shards is None:
            return inputs.microbatches(grad_accumulation)
        count = self.shards // self.ranks.size
        first = self.ranks.rank * count
        return inputs.parts(cuts(inputs.rows.total, self.shards)[first : first + count + 1])

    def __call__(self, parts: Iterable[tuple[Reports, float]]) -> Reports:
        """Adds the reports of the parts of this rank, and those of the others.

        Args:
            parts: reports whose gradients (but not means) are weighted by the share, which comes second.
        """
        if self.shards is not None and self.ranks.size > 1:
            return self._in_order([accumulate(None, reports, share) for reports, share in parts])
        total: Reports | None = None
        for reports, share in parts:
            total = reports if share == 1 else accumulate(total, reports, share)
        assert total is not None, "a batch has at least one image"
        return total if self.ranks.size == 1 else self._unflatten(total, map(self.ranks.add, _flatten(total)))

    def _in_order(self, parts: list[Reports]) -> Reports:
        """Adds shard after shard, of all ranks in turn."""
        flat = [torch.stack(tensors) for tensors in zip(*map(_flatten, parts), strict=True)]  # (shards of a rank, N)
        sums = []
        for shards in (self.ranks.gather(tensor).flatten(0, 1) for tensor in flat):
            total = shards[0]
            for shard in shards[1:]:
                total = total + shard
            sums.append(total)
        return self._unflatten(parts[0], iter(sums))

    def _unflatten(self, like: Reports, flat: Iterator[Tensor]) -> Reports:
        """The inverse of `_flatten`, with the structure of `like`."""
        tensors, values = _tensors(like), dict[int, Tensor]()
        for numbers, total in zip(_groups(tensors).values(), flat, strict=True):
            pieces = total.split([tensors[number].numel() for number in numbers])
            values |= {n: piece.view(tensors[n].shape) for n, piece in zip(numbers, pieces, strict=True)}
        summed = iter(values[number] for number in range(len(values)))
        gradients = [
            None if gradient is None else with_layout_of(p, next(summed))
            for p, gradient in zip(self.parameters, like.gradients, strict=True)
        ]
        scalars, model, objective = ({name: next(summed) for name in part} for part in (like.scalars, *like.statistics))
        return Reports(gradients, scalars, Statistics(model, objective))


def _tensors(reports: Reports) -> list[Tensor]:
    """All tensors of reports, in a fixed order."""
    means: list[Scalars] = [reports.scalars, *reports.statistics]
    gradients = [gradient for gradient in reports.gradients if gradient is not None]
    return [*gradients, *(value for part in means for value in part.values())]


def _groups(tensors: list[Tensor]) -> dict[torch.dtype, list[int]]:
    """The numbers of the tensors of every type."""
    groups = dict[torch.dtype, list[int]]()
    for number, tensor in enumerate(tensors):
        groups.setdefault(tensor.dtype, []).append(number)
    return groups


def _flatten(reports: Reports) -> list[Tensor]:
    """One vector of all tensors of every type."""
    tensors = _tensors(reports)
    return [torch.cat([tensors[number].reshape(-1) for number in group]) for group in _groups(tensors).values()]


class SharedBatch(WholeBatch):
    """A batch of which every rank has some images.

    Args:
        ranks: the processes.
        rows: the images of this rank.
    """

    def __init__(self, ranks: Ranks, rows: Rows) -> None:
        self.ranks, self.start, self.count, self.total = ranks, rows.start, rows.stop - rows.start, rows.total

    @classmethod
    def of(cls, ranks: Ranks, rng: Rng) -> WholeBatch:
        """The whole batch of the images that `rng` is for.

        Compiled steps have the noise of their own images, which names no rows; losses that depend on the whole batch
        are not compiled.
        """
        return WHOLE if rng.rows is None else cls(ranks, rng.rows)

    @override
    def mean(self, x: Tensor) -> Tensor:
        share: Tensor = x * (self.count / self.total)
        return _Sum.apply(share, self.ranks)

    @override
    def gather(self, x: Tensor, dim: int) -> Tensor:
        shape = list(x.shape)
        before, after = list(shape), list(shape)
        before[dim], after[dim] = self.start, self.total - self.start - self.count
        return _Sum.apply(torch.cat([x.new_zeros(before), x, x.new_zeros(after)], dim), self.ranks)

    @override
    def own(self, x: Tensor, dim: int) -> Tensor:
        return x.narrow(dim, self.start, self.count)

    @override
    @torch.no_grad()
    def norm(self, gradient: Tensor, is_shared: bool) -> Tensor:
        gradient = (gradient * (self.count / self.total)).contiguous()
        if is_shared:
            return self.ranks.add(gradient).norm()
        return self.ranks.add(gradient.square().sum()).sqrt()


class _Sum(torch.autograd.Function):
    """A sum over all ranks. Since all of them use it, its gradient is the sum of the gradients of all ranks."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.add(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.ranks.add(gradient.clone(memory_format=torch.contiguous_format)), None
