"""The nearest images of a split, which show whether a model has memorised its training images."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Batch, Fetched
from vae_train.plotting.grid import grey_out

CHUNK_BYTES = 2**26
"""Size of a chunk of images in float32."""


class Neighbors(NamedTuple):
    """The k nearest images of a split for each of N images, the nearest first."""

    distance: Tensor
    """(N, k) root mean square difference of pixels in [0, 1], over the values that are not missing."""
    numbers: Tensor
    """(N, k) int64, indices of the images within the split."""
    images: Tensor
    """(N, k, C, H, W) in [0, 1], with missing values as in `grey_out`."""


@torch.no_grad()
def nearest_images(
    queries: Tensor, images: Fetched, k: int, to_pixels: Callable[[Tensor], Tensor], device: torch.device
) -> Neighbors:
    """Finds the nearest images of a split, without loading all of it.

    Args:
        queries: `(N, C, H, W)` in [0, 1].
        images: the split, of at least k images.
        k: number of neighbours.
        to_pixels: maps the images of a batch to [0, 1].
        device: where distances are computed.
    """
    flat = queries.to(device).flatten(1)
    square = torch.full((len(queries), 0), 0.0, device=device)
    index = torch.zeros((len(queries), 0), dtype=torch.int64, device=device)
    for start, pixels, observed in _chunks(images, flat.shape[1], to_pixels, device):
        found = _squares(flat, pixels, observed)
        numbers = torch.arange(start, start + len(pixels), device=device).expand(len(flat), -1)
        square, index = torch.cat([square, found], 1), torch.cat([index, numbers], 1)
        # More than k, since the squares are rounded.
        square, order = square.topk(min(2 * k, square.shape[1]), dim=1, largest=False)
        index = index.gather(1, order)
    return _exact(queries, images, index, k, to_pixels)


def _chunks(
    images: Fetched, size: int, to_pixels: Callable[[Tensor], Tensor], device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yields pixels `(B, D)` of consecutive images, with the index of the first, and which are observed."""
    for rows in torch.arange(len(images), device=device).split(max(1, CHUNK_BYTES // (4 * size))):
        # Without random bits and noise.
        pixels, observed = _pixels(images.fetch(rows), to_pixels)
        yield int(rows[0]), pixels.to(device).flatten(1), observed.to(device).flatten(1)


def _pixels(batch: Batch, to_pixels: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Pixels of a batch in [0, 1], 0 where they are missing, and 1 for those that are observed; `(B, C, H, W)` each."""
    pixels = to_pixels(batch.x)
    observed = torch.ones_like(pixels) if batch.mask is None else batch.mask.to(pixels).expand_as(pixels)
    return pixels * observed, observed


def _squares(queries: Tensor, pixels: Tensor, observed: Tensor) -> Tensor:
    """Mean squared differences `(N, B)` of `(N, D)` and `(B, D)`, by matrix products."""
    squares = queries.square() @ observed.T - 2 * queries @ pixels.T + pixels.square().sum(1)
    return squares / observed.sum(1).clamp(min=1)


def _exact(
    queries: Tensor, images: Fetched, candidates: Tensor, k: int, to_pixels: Callable[[Tensor], Tensor]
) -> Neighbors:
    """The k nearest of some candidates `(N, K)`, by exact distances."""
    distances, indices, chosen = [], [], []
    for query, numbers in zip(queries.cpu(), candidates, strict=True):
        pixels, observed = (values.cpu() for values in _pixels(images.fetch(numbers), to_pixels))
        square = (query - pixels).double().square().mul(observed).flatten(1).sum(1)
        distance = (square / observed.flatten(1).sum(1).clamp(min=1)).sqrt()
        order = distance.argsort(stable=True)[:k]
        distances.append(distance[order])
        indices.append(numbers.cpu()[order])
        chosen.append(grey_out(pixels, observed > 0)[order])
    return Neighbors(torch.stack(distances).float(), torch.stack(indices), torch.stack(chosen))
