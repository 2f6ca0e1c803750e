"""The boundaries of epochs in the endless stream of batches."""

import math
from typing import NamedTuple

from typing_extensions import Self


def length_setting(epochs: int, steps: int | None, factor: int = 1) -> str:
    """The setting for the length of a run: its updates if it has them, else its epochs.

    Args:
        epochs: epochs of the run.
        steps: its updates; None if its length is in epochs.
        factor: how often as long it is to be.
    """
    return f"epochs={factor * epochs}" if steps is None else f"steps={factor * steps}"


class Epochs(NamedTuple):
    """Epochs of N images in batches of B. An epoch that ends within a batch includes the whole batch."""

    total: int
    num_images: int
    batch_size: int
    steps: int | None = None
    """Updates of the run, which may cut the last epoch short; None for whole epochs."""

    @classmethod
    def of_steps(cls, steps: int, num_images: int, batch_size: int) -> Self:
        """The epochs of a run with this many updates."""
        return cls((steps - 1) * batch_size // num_images + 1, num_images, batch_size, steps)

    @property
    def last_step(self) -> int:
        """Number of updates at the end of the run."""
        return self.end(self.total)

    @property
    def setting(self) -> str:
        """The setting for a run of this length."""
        return length_setting(self.total, self.steps)

    @property
    def twice(self) -> str:
        """The setting for a run of twice the length."""
        return length_setting(self.total, self.steps, 2)

    def until(self, step: float) -> str:
        """The setting for a run that includes an update, which may be fractional."""
        epochs = math.ceil(step * self.batch_size / self.num_images)
        return length_setting(epochs, None if self.steps is None else math.ceil(step))

    def end(self, epoch: int) -> int:
        """Number of updates at the end of an epoch; the first epoch is 1."""
        whole = -(-epoch * self.num_images // self.batch_size)
        return whole if self.steps is None else min(whole, self.steps)

    def of(self, step: int) -> int:
        """The epoch of the update after `step` updates; after the last update, total + 1."""
        if self.steps is not None and step >= self.steps:
            return self.total + 1
        epoch = step * self.batch_size // self.num_images
        while self.end(epoch) <= step:
            epoch += 1
        return epoch
