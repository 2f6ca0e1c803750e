"""Where the inputs of steps come from."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vae_train.data.stream import Stream
from vae_train.rng import NoiseBuffers, Rng
from vae_train.training.step import StepInputs, StoredBatch


class Feed:
    """The inputs of every step: a function of the step alone.

    Args:
        stream: the training batches; its seed is that of the noise, too.
        rates: step -> the learning rate of every parameter group.
    """

    def __init__(self, stream: Stream, rates: Callable[[int], list[float]]) -> None:
        self.stream, self.rates = stream, rates
        self.seed, self.device = stream.seed, stream.device

    def inputs(self, step: int) -> StepInputs:
        """The inputs of the update that turns `step` updates into `step + 1`."""
        rng = Rng(self.seed, "train", step, device=self.device)
        return StepInputs(self.stream.batch(step), step, self.rates(step), rng)


class TensorFeed:
    """The same inputs, with everything that changes as a tensor: a compiled step would freeze a Python number.

    The first step records which noise it requests. Later steps receive noise with the same shapes.

    Args:
        feed: where the inputs come from.
    """

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._data = NoiseBuffers(feed.seed, "data", feed.device)
        self._train = NoiseBuffers(feed.seed, "train", feed.device)
        self._step = torch.zeros((), dtype=torch.int64, device=feed.device)

    def inputs(self, step: int) -> StepInputs:
        """The inputs of update `step`; valid until the next call."""
        stream = self.feed.stream
        for noise in (self._data, self._train):
            noise.seek(step)
        batch = StoredBatch(stream.raw(step), self._data.rng(), stream.images.finish)
        return StepInputs(batch, self._step.fill_(step), self.feed.rates(step), self._train.rng())
