"""Statistics of a split: mean, standard deviation, histogram, and the entropy that binarisation adds."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Images, evenly_spaced

CONTINUOUS_BINS, MAX_LEVEL_BINS = 64, 256
"""Histogram bins for continuous data, and maximal number for data with levels."""

CHUNK_IMAGES = 512


class Overview(NamedTuple):
    """Statistics of evenly spaced images of a split."""

    images: int
    """Number of images."""
    mean: Tensor
    """(C, H, W) the mean image."""
    std: Tensor
    """(C,) standard deviation of every channel's values."""
    missing: float
    """Fraction of missing values, which the other statistics leave out."""
    histogram: Tensor
    """(C, bins) counts of each channel's values in equal bins over [0, 1]."""
    entropy: float
    """Mean over images of sum_i H(x_i) in nats: the entropy of bits with probabilities x."""
    class_means: dict[int, Tensor]
    """(C, H, W) the mean image of every class that occurs; empty without labels or with several factors."""


@torch.no_grad()
def overview(
    images: Images, levels: int | None, to_pixels: Callable[[Tensor], Tensor], limit: int = 10_000
) -> Overview:
    """Computes the statistics of a split, before binarisation.

    Args:
        images: the split.
        levels: number of values that a stored pixel can take, one bin each; None for continuous data.
        to_pixels: maps images of a batch to [0, 1].
        limit: maximal number of images.
    """
    index = evenly_spaced(len(images), limit)
    bins = CONTINUOUS_BINS if levels is None else min(levels, MAX_LEVEL_BINS)
    total, squares, counts, histogram = (torch.zeros(()) for _ in range(4))
    entropy, classes = 0.0, dict[int, tuple[Tensor, int]]()
    for rows in index.split(CHUNK_IMAGES):
        batch = images.fetch(rows)
        x = to_pixels(batch.x).double().cpu()
        observed = torch.ones_like(x, dtype=torch.bool) if batch.mask is None else batch.mask.cpu().expand_as(x)
        x = torch.where(observed, x, 0.0)
        counts = counts + observed.sum(0)
        total = total + x.sum(0)
        squares = squares + (x * x).sum((0, 2, 3))
        p = x.clamp(0, 1)
        entropy += float((torch.special.entr(p) + torch.special.entr(1 - p)).sum())
        histogram = histogram + torch.stack(
            [torch.histc(c[o], bins, 0.0, 1.0) for c, o in zip(x.unbind(1), observed.unbind(1), strict=True)]
        )
        if batch.y is not None and batch.y.shape[1] == 1:
            _add_classes(classes, x, batch.y[:, 0].cpu())
    count, per_channel = len(index), counts.sum((1, 2))
    variance = squares / per_channel - (total.sum((1, 2)) / per_channel) ** 2
    mean, std = (total / counts.clamp(min=1)).float(), variance.clamp(min=0).sqrt().float()
    missing = 1 - float(counts.mean()) / count
    means = {label: (sums / number).float() for label, (sums, number) in sorted(classes.items())}
    return Overview(count, mean, std, missing, histogram, entropy / count, means)


def _add_classes(classes: dict[int, tuple[Tensor, int]], x: Tensor, labels: Tensor) -> None:
    """Adds images `(B, C, H, W)` to the sums of their classes, with the number of images in each."""
    for label in labels.unique().tolist():
        chosen = x[labels == label]
        sums, number = classes.get(label, (0.0, 0))
        classes[label] = chosen.sum(0) + sums, number + len(chosen)
