"""The boundaries of epochs in the endless stream of batches."""

from typing import NamedTuple

from typing_extensions import Self


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
        return f"epochs={self.total}" if self.steps is None else f"steps={self.steps}"

    @property
    def twice(self) -> str:
        """The setting for a run of twice the length."""
        return f"epochs={2 * self.total}" if self.steps is None else f"steps={2 * self.steps}"

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
