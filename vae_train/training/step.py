"""What a training step takes and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from torch import Tensor

from vae_train.batch import Batch, Raw
from vae_train.rng import Rng, Rows

Scalars = dict[str, Tensor]
"""Name -> mean over the images of a batch: detached tensors with shape `()`."""

Gradients = list[Tensor | None]
"""One for every parameter; None where the loss does not depend on it."""


class Losses(NamedTuple):
    """What the optimisation targets minimise; see `Objective.forward`."""

    loss: Tensor
    critic: Tensor | None = None
    encoder: Tensor | None = None


class Statistics(NamedTuple):
    """What the state of a model and of an objective moves by: detached means over the images of a batch."""

    model: Scalars
    objective: Scalars


class Reports(NamedTuple):
    """What the backward pass of a batch returns."""

    gradients: Gradients
    scalars: Scalars
    statistics: Statistics


class StoredBatch(NamedTuple):
    """A batch as it is stored, so that a compiled or captured step turns it into a `Batch` itself."""

    raw: Raw
    rng: Rng
    """The noise of augmentation, binarisation, dequantisation and corruption."""
    finish: Callable[[Raw, Rng], Batch]

    def finished(self) -> Batch:
        """What the model receives."""
        return self.finish(self.raw, self.rng)

    def part(self, start: int, stop: int) -> StoredBatch:
        """Images `start` to `stop` of the batch, with the noise that they have in the whole batch."""
        pixels, y = self.raw
        raw = Raw(pixels[start:stop], None if y is None else y[start:stop])
        return self._replace(raw=raw, rng=self.rng.part(Rows(start, stop, len(pixels))))


class StepInputs(NamedTuple):
    """Everything that a step depends on besides the state of the learner."""

    batch: Batch | StoredBatch
    step: int | Tensor
    """Number of updates so far; an int64 tensor with shape `()` where the step is compiled or captured."""
    rates: Sequence[float | Tensor]
    """The learning rate of every parameter group."""
    rng: Rng

    @property
    def num_images(self) -> int:
        """B."""
        return len(self.batch.raw.pixels if isinstance(self.batch, StoredBatch) else self.batch.x)


class Microbatch(NamedTuple):
    """Some images of a batch."""

    batch: Batch | StoredBatch
    rng: Rng
    share: float
    """The number of these images divided by that of the whole batch."""


def microbatches(inputs: StepInputs, count: int) -> Iterator[Microbatch]:
    """Splits a batch into `count` parts of almost equal size, with the noise that they have in the whole batch."""
    if count == 1:
        yield Microbatch(inputs.batch, inputs.rng, 1.0)
        return
    total = inputs.num_images
    for start, stop in pairwise(round(i * total / count) for i in range(count + 1)):
        if stop - start == total:
            yield Microbatch(inputs.batch, inputs.rng, 1.0)
        elif start < stop:  # a batch of fewer images than `count` leaves some parts empty
            rng = inputs.rng.part(Rows(start, stop, total))
            yield Microbatch(inputs.batch.part(start, stop), rng, (stop - start) / total)


class GradientFunction(Protocol):
    """Computes the gradients of one microbatch."""

    def __call__(self, batch: Batch | StoredBatch, step: int | Tensor, rng: Rng, share: float) -> Reports:
        """The gradient of every optimisation target's loss times `share`, and what is reported of the microbatch."""
        ...
