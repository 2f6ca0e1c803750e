"""Where epochs begin and end in the endless stream of batches."""

from typing import NamedTuple


class Epochs(NamedTuple):
    """Epochs of N images in batches of B: an epoch that ends within a batch includes that batch."""

    total: int
    num_images: int
    batch_size: int

    def end(self, epoch: int) -> int:
        """Number of updates at the end of an epoch; the first epoch is 1."""
        return -(-epoch * self.num_images // self.batch_size)

    def of(self, step: int) -> int:
        """The epoch that the update after `step` updates belongs to."""
        epoch = step * self.batch_size // self.num_images
        while self.end(epoch) <= step:
            epoch += 1
        return epoch
