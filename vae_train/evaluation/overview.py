"""Statistics of a split: mean, standard deviation, histogram, and the entropy that binarisation adds."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Images, evenly_spaced

CONTINUOUS_BINS, MAX_LEVEL_BINS = 64, 256
"""Bins of the histogram, of continuous data and of data with levels."""

CHUNK_IMAGES = 512


class Overview(NamedTuple):
    """Statistics of evenly spaced images of a split."""

    images: int
    """Number of images."""
    mean: Tensor
    """(C, H, W) the mean image."""
    std: Tensor
    """(C,) standard deviation of every channel's values."""
    histogram: Tensor
    """(C, bins) counts of each channel's values in equal bins of [0, 1]."""
    entropy: float
    """sum_i H(x_i) in nats, the mean over images: the entropy of bits with probabilities x."""


@torch.no_grad()
def overview(
    images: Images, levels: int | None, to_pixels: Callable[[Tensor], Tensor], limit: int = 10_000
) -> Overview:
    """Computes the statistics of a split, of grey values where training binarises them.

    Args:
        images: the split.
        levels: number of values that a stored pixel can take, one bin each; None for continuous data.
        to_pixels: maps images of a batch to [0, 1].
        limit: images, at most.
    """
    index = evenly_spaced(len(images), limit)
    bins = CONTINUOUS_BINS if levels is None else min(levels, MAX_LEVEL_BINS)
    total, squares, entropy = torch.zeros(()), torch.zeros(()), 0.0
    histogram = torch.zeros(())
    for rows in index.split(CHUNK_IMAGES):
        x = to_pixels(images.fetch(rows).x).double().cpu()
        total = total + x.sum(0)
        squares = squares + (x * x).sum((0, 2, 3))
        p = x.clamp(0, 1)
        entropy += float((torch.special.entr(p) + torch.special.entr(1 - p)).sum())
        histogram = histogram + torch.stack([torch.histc(c, bins, 0.0, 1.0) for c in x.unbind(1)])
    count = len(index)
    mean = total / count
    per_channel = squares / (count * mean[0].numel()) - mean.mean((1, 2)) ** 2
    return Overview(count, mean.float(), per_channel.clamp(min=0).sqrt().float(), histogram, entropy / count)
