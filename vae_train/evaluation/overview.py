"""What a split holds: mean, histogram, and the entropy that its binarisation adds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Images, evenly_spaced

BINS = 64
"""Of the histogram of data without levels."""

CHUNK = 512


class Overview(NamedTuple):
    """Figures of some images of a split, which are spread evenly over it."""

    images: int
    """How many images were looked at."""
    mean: Tensor
    """(C, H, W) the mean image."""
    std: Tensor
    """(C,) standard deviation of every channel's values."""
    histogram: Tensor
    """(C, bins) how many values of each channel fall into each of the bins that [0, 1] is cut into."""
    entropy: float
    """sum_i H(x_i) in nats, the mean over images: the entropy of bits that are drawn with probabilities x."""


@torch.no_grad()
def overview(images: Images, levels: int | None, most: int = 10_000) -> Overview:
    """Goes through a split without drawing anything: what is binarised at every step is seen in grey here.

    Args:
        images: the split.
        levels: number of stored values, each of which gets a bin; None for continuous ones.
        most: images that are looked at.
    """
    index = evenly_spaced(len(images), most)
    bins = BINS if levels is None else min(levels, 256)
    total, squares, entropy = torch.zeros(()), torch.zeros(()), 0.0
    histogram = torch.zeros(())
    for part in index.split(CHUNK):
        x = images.fetch(part).x.double().cpu()
        total = total + x.sum(0)
        squares = squares + (x * x).sum((0, 2, 3))
        entropy += float(_bit_entropy(x.clamp(0, 1)).sum())
        histogram = histogram + torch.stack([torch.histc(c, bins, 0.0, 1.0) for c in x.unbind(1)])
    count = len(index)
    mean = total / count
    per_channel = squares / (count * mean[0].numel()) - mean.mean((1, 2)) ** 2
    return Overview(count, mean.float(), per_channel.clamp(min=0).sqrt().float(), histogram, entropy / count)


def _bit_entropy(p: Tensor) -> Tensor:
    """Entropy of bits with probabilities `p`, elementwise in nats."""
    return torch.special.entr(p) + torch.special.entr(1 - p)
