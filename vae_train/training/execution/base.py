"""The interface of runners, and the inputs of their steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Raw
from vae_train.data.stream import Stream
from vae_train.rng import NoiseBuffers
from vae_train.training.step import Scalars, StepInputs, StoredBatch
from vae_train.util.text import first_line

log = logging.getLogger("vae_train")

Mode = Literal["auto", "eager", "compile", "graph"]

Step = Callable[[StepInputs], Scalars]
"""Takes one step: tensor operations that do not wait for the device."""


class Feed:
    """The inputs of every step, which depend only on the step.

    Args:
        stream: the training batches; its seed is also that of the noise.
        rates: step -> the learning rate of every parameter group.
    """

    def __init__(self, stream: Stream, rates: Callable[[int], list[float]]) -> None:
        self.stream, self.rates = stream, rates
        self.seed, self.device = stream.seed, stream.device

    def inputs(self, step: int) -> StepInputs:
        """The inputs of the update that turns `step` updates into `step + 1`."""
        return StepInputs(self.stream.batch(step), step, self.rates(step), self.stream.noise("train", step))


class Buffers:
    """Images, numbers, learning rates and noise of some consecutive steps.

    A compiled or captured step reads its inputs from tensors that are filled in advance, since it would treat Python
    numbers as constants. The first step records which noise it requests.

    Args:
        feed: supplies the inputs.
        count: number of steps.
        like: buffers of an executed step, which have recorded the requested noise.
    """

    def __init__(self, feed: Feed, count: int = 1, like: Buffers | None = None) -> None:
        stream, device, groups = feed.stream, feed.device, len(feed.rates(0))
        self.feed, self.count = feed, count
        self._index = torch.zeros(count, stream.num_taken, dtype=torch.int64, device=device)
        self._raw: list[Raw] = []
        """Copies of images that are not stored on the device."""
        self._steps, self._numbers = torch.arange(count, device=device), torch.arange(count, device=device)
        # float32 on CUDA, as its kernels expect.
        self._rates = torch.zeros(count, groups, device=device, dtype=torch.float64 if device.type == "cpu" else None)
        self._filled: list[list[float]] = []
        if like is None:
            self._noise = [(NoiseBuffers(feed.seed, "data", device), NoiseBuffers(feed.seed, "train", device))]
        else:
            ((data, train),) = like._noise
            self._noise = [(data.like(), train.like()) for _ in range(count)]
            self._raw = [_empty_like(raw) for raw in like._raw for _ in range(count)]

    def fill(self, step: int) -> None:
        """Fills the tensors for the steps from `step` on, without waiting for the device."""
        stream = self.feed.stream
        if stream.images.resident:
            self._index.view(-1).copy_(stream.index(step, self.count))
        else:
            self._copy_images(step)
        torch.add(self._numbers, step, out=self._steps)
        rates = [self.feed.rates(step + number) for number in range(self.count)]
        if rates != self._filled:
            pinned = self._rates.is_cuda  # otherwise the copy would wait for the device
            self._rates.copy_(torch.tensor(rates, dtype=self._rates.dtype, pin_memory=pinned), non_blocking=True)
            self._filled = rates
        self.seek(step)

    def seek(self, step: int) -> None:
        """Generates the noise of the steps from `step` on."""
        for number, noises in enumerate(self._noise):
            for noise in noises:
                noise.seek(step + number)

    def inputs(self, number: int) -> StepInputs:
        """The inputs of step `number` of these steps, computed from the tensors."""
        data, train = self._noise[number]
        images, rows = self.feed.stream.images, self.feed.stream.rows
        raw = self._raw[number] if self._raw else images.gather(self._index[number])
        batch = StoredBatch(raw, data.rng(rows), images.finish)
        return StepInputs(batch, self._steps[number], self._rates[number].unbind(), train.rng(rows))

    def _copy_images(self, step: int) -> None:
        """Copies the images of all steps to tensors with fixed addresses."""
        for number in range(self.count):
            raw = self.feed.stream.raw(step + number)
            if len(self._raw) <= number:
                self._raw.append(_empty_like(raw))
            for own, new in zip(self._raw[number], raw, strict=True):
                if own is not None and new is not None:
                    own.copy_(new, non_blocking=True)


def _empty_like(raw: Raw) -> Raw:
    return Raw(torch.empty_like(raw.pixels), None if raw.y is None else torch.empty_like(raw.y))


class Rows(NamedTuple):
    """The scalars of consecutive steps."""

    names: list[str]
    values: Tensor
    """(steps, F) on the device, possibly not computed yet."""


@dataclass
class Runner:
    """Calls a step function with the inputs of a feed. This base class takes one step at a time, uncompiled.

    Args:
        step: takes one step.
        feed: supplies the inputs.
        norm: the L2 norm of the gradient of the last step, with shape `()`.
        mode: how steps are executed; it changes on a fallback.
    """

    step: Step
    feed: Feed
    norm: Callable[[], Tensor]
    mode: Mode

    @cached_property
    def buffers(self) -> Buffers:
        """Input tensors of one step, for compiled and captured steps."""
        return Buffers(self.feed)

    def __call__(self, step: int, limit: int) -> Rows:
        """Takes as many steps as this mode executes at once, at least one.

        Args:
            step: number of updates so far.
            limit: largest number of steps.

        Returns:
            The scalars of every step, computed before its update.
        """
        return stacked([self.step(self.feed.inputs(step))])

    def gradient_norm(self) -> float:
        """The L2 norm of the last step's gradient before clipping. Waits for the device."""
        return float(self.norm())

    def fall_back(self, mode: Mode, error: Exception) -> None:
        """Switches to another mode, and logs that this one is not supported."""
        reason = first_line(error)
        log.warning("execution=%s is not supported here; falling back to %s: %s", self.mode, mode, reason)
        log.debug("%s", reason, exc_info=error)
        self.mode = mode


def stacked(steps: Sequence[Scalars]) -> Rows:
    """Stacks the scalars of some steps as rows."""
    values = [value for scalars in steps for value in scalars.values()]
    return Rows(list(steps[0]), torch.stack(values).view(len(steps), -1))
