"""Where epochs begin and end in the endless stream of batches, and their progress bars."""

import sys
from typing import NamedTuple

from tqdm import tqdm


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

    def progress_bar(self, epoch: int, step: int) -> tqdm:
        """A bar over the steps of an epoch, on a terminal only; the last epoch's stays.

        Args:
            epoch: number of the epoch.
            step: number of updates so far.
        """
        begin = self.end(epoch - 1)
        return tqdm(
            total=self.end(epoch) - begin,
            initial=step - begin,
            desc=f"Epoch {epoch}/{self.total}",
            bar_format="{desc} |{bar:20}| {percentage:.0f}%{postfix}  [{elapsed}<{remaining}]",
            leave=epoch == self.total,
            disable=not sys.stderr.isatty(),
        )


def summary(row: dict[str, float]) -> str:
    """The most important metrics of a row, for the bar and the log."""
    text = f"loss {row['loss']:.2f}  recon {row['distortion']:.2f}"
    text += f"  kl {row['rate']:.2f}" if "rate" in row else ""
    return text + f"  {row['images_per_second']:,.0f} img/s" if "images_per_second" in row else text
