"""The inputs of consecutive steps, in tensors that keep their addresses."""

from __future__ import annotations

import torch

from vae_train.batch import Raw
from vae_train.rng import NoiseBuffers
from vae_train.training.execution.feed import Feed
from vae_train.training.step import StepInputs, StoredBatch


class Buffers:
    """Images, numbers, learning rates and noise of some consecutive steps.

    A captured step reads all of them from tensors, which are filled before the steps are taken: a CUDA graph would
    freeze a Python number.

    Args:
        feed: where the inputs come from.
        count: number of steps.
        like: buffers of a step that was taken, which know what noise is requested.
    """

    def __init__(self, feed: Feed, count: int = 1, like: Buffers | None = None) -> None:
        stream, device, groups = feed.stream, feed.device, len(feed.rates(0))
        self.feed, self.count = feed, count
        self._index = torch.zeros(count, stream.batch_size, dtype=torch.int64, device=device)
        self._all = self._index.view(-1)
        self._raw: list[Raw] = []
        """Images that are not on the device are copied here."""
        self._steps, self._numbers = torch.arange(count, device=device), torch.arange(count, device=device)
        # In float32 on CUDA, whose kernels read them so.
        self._rates = torch.zeros(count, groups, device=device, dtype=torch.float64 if device.type == "cpu" else None)
        self._filled: list[list[float]] = []
        if like is None:
            self._noise = [(NoiseBuffers(feed.seed, "data", device), NoiseBuffers(feed.seed, "train", device))]
        else:
            ((data, train),) = like._noise
            self._noise = [(data.like(), train.like()) for _ in range(count)]
            self._raw = [_empty_like(raw) for raw in like._raw for _ in range(count)]

    def fill(self, step: int) -> None:
        """Sets everything for the steps from `step` on; queued on the device, which is not waited for."""
        stream = self.feed.stream
        if stream.images.resident:
            self._all.copy_(stream.index(step, self.count))
        else:
            self._copy_images(step)
        torch.add(self._numbers, step, out=self._steps)
        rates = [self.feed.rates(step + number) for number in range(self.count)]
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

    def inputs(self, number: int) -> StepInputs:
        """The inputs of step `number` among these, computed from the tensors."""
        data, train = self._noise[number]
        batch = StoredBatch(self._images(number), data.rng(), self.feed.stream.images.finish)
        return StepInputs(batch, self._steps[number], self._rates[number].unbind(), train.rng())

    def _images(self, number: int) -> Raw:
        """The stored images of one step, on the device."""
        return self._raw[number] if self._raw else self.feed.stream.images.gather(self._index[number])

    def _copy_images(self, step: int) -> None:
        """Copies the images of all steps to tensors that keep their addresses."""
        for number in range(self.count):
            raw = self.feed.stream.raw(step + number)
            if len(self._raw) <= number:
                self._raw.append(_empty_like(raw))
            for own, new in zip(self._raw[number], raw, strict=True):
                if own is not None and new is not None:
                    own.copy_(new, non_blocking=True)


def _empty_like(raw: Raw) -> Raw:
    return Raw(torch.empty_like(raw.pixels), None if raw.y is None else torch.empty_like(raw.y))
