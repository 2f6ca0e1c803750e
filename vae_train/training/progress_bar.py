"""The progress bar of an epoch."""

from __future__ import annotations

import sys

from tqdm import tqdm

from vae_train.training.epochs import Epochs


def progress_bar(epoch: int, last_epoch: int, step: int, epochs: Epochs) -> tqdm:
    """A bar over the steps of an epoch, on a terminal only; the last epoch's stays.

    Args:
        epoch: number of the epoch.
        last_epoch: number of epochs in the run.
        step: number of updates so far.
        epochs: where epochs begin and end.
    """
    begin, end = epochs.end(epoch - 1), epochs.end(epoch)
    return tqdm(
        total=end - begin,
        initial=step - begin,
        desc=f"Epoch {epoch}/{last_epoch}",
        bar_format="{desc} |{bar:20}| {percentage:.0f}%{postfix}  [{elapsed}<{remaining}]",
        leave=epoch == last_epoch,
        disable=not sys.stderr.isatty(),
    )


def summary(row: dict[str, float]) -> str:
    """The most important metrics of a row, for the bar and the log."""
    text = f"loss {row['loss']:.2f}  recon {row['distortion']:.2f}"
    text += f"  kl {row['rate']:.2f}" if "rate" in row else ""
    return text + f"  {row['images_per_second']:,.0f} img/s" if "images_per_second" in row else text
