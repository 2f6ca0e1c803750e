"""What a step is a function of, in tensors that stay where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae_train.batch import Raw
from vae_train.rng import NoiseBuffers, Rng

if TYPE_CHECKING:
    from vae_train.batch import Batch
    from vae_train.data.stream import Stream
    from vae_train.training.learner import Learner


class Inputs:
    """Images, numbers, learning rates and noise of some consecutive steps.

    A captured or compiled step reads all of it from tensors, which are filled before the steps are taken: a Python
    number would be frozen.

    Args:
        learner: whose steps.
        stream: where the images come from.
        count: how many steps.
        like: inputs of a step that was taken, which know what noise is asked for.
    """

    def __init__(self, learner: Learner, stream: Stream, count: int = 1, like: Inputs | None = None) -> None:
        device, groups = learner.device, len(learner.base_rates)
        self.learner, self.stream, self.count = learner, stream, count
        self._index = torch.zeros(count, stream.batch_size, dtype=torch.int64, device=stream.device)
        self._all = self._index.view(-1)
        self._raw: list[Raw] = []
        """Images that are not on the device are copied to where the step finds them."""
        self._steps, self._numbers = torch.arange(count, device=device), torch.arange(count, device=device)
        # In float32 on CUDA, whose kernels read them so.
        self._rates = torch.zeros(count, groups, device=device, dtype=torch.float64 if device.type == "cpu" else None)
        self._filled: list[list[float]] = []
        if like is None:
            self._noise = [
                (NoiseBuffers(learner.seed, "data", stream.device), NoiseBuffers(learner.seed, "train", device))
            ]
        else:
            ((data, train),) = like._noise
            self._noise = [(data.like(), train.like()) for _ in range(count)]
            self._raw = [_empty_like(raw) for raw in like._raw for _ in range(count)]

    def fill(self, step: int) -> None:
        """Sets everything for the steps from `step` on; it is queued on the device, which is not waited for."""
        if self.stream.images.resident:
            self._all.copy_(self.stream.index(step, self.count))
        else:
            self._feed(step)
        torch.add(self._numbers, step, out=self._steps)
        rates = [self.learner.rates(step + number) for number in range(self.count)]
        if rates != self._filled:
            pinned = self._rates.is_cuda  # or the copy would wait for the device
            self._rates.copy_(torch.tensor(rates, dtype=self._rates.dtype, pin_memory=pinned), non_blocking=True)
            self._filled = rates
        self.seek(step)

    def seek(self, step: int) -> None:
        """Makes the noise of the steps from `step` on."""
        for number, noises in enumerate(self._noise):
            for noise in noises:
                noise.seek(step + number)

    def of(self, number: int) -> tuple[Batch, Tensor, Rng]:
        """What `Learner.take` asks for, of step `number` among these, computed from the tensors."""
        data, train = self._noise[number]
        batch = self.stream.images.finish(self._images(number), data.rng())
        return batch, self._steps[number], train.rng()

    def rates(self, number: int) -> tuple[Tensor, ...]:
        """The learning rate of every group of parameters in step `number` among these."""
        return self._rates[number].unbind()

    def _images(self, number: int) -> Raw:
        """The stored images of one step, on the device."""
        return self._raw[number] if self._raw else self.stream.images.gather(self._index[number])

    def _feed(self, step: int) -> None:
        """Copies the images of all steps to tensors that stay where they are."""
        for number in range(self.count):
            raw = self.stream.raw(step + number)
            if len(self._raw) <= number:
                self._raw.append(_empty_like(raw))
            for mine, theirs in zip(self._raw[number], raw, strict=True):
                if mine is not None and theirs is not None:
                    mine.copy_(theirs, non_blocking=True)


def _empty_like(raw: Raw) -> Raw:
    return Raw(torch.empty_like(raw.pixels), None if raw.y is None else torch.empty_like(raw.y))
