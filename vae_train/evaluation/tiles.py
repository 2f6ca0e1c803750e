"""Functions of images of a fixed size, applied to larger images in overlapping tiles."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Axis:
    """The tiles along one side of an image."""

    length: int
    """Side of the image in pixels."""
    tile: int
    """Side of a tile."""
    overlap: int
    """Pixels that neighbouring tiles share; at most half a tile."""

    @property
    def count(self) -> int:
        """Number of tiles; the last one may reach beyond the image."""
        return max(1, -(-(self.length - self.overlap) // (self.tile - self.overlap)))

    def start(self, number: int) -> int:
        """The first pixel of a tile."""
        return number * (self.tile - self.overlap)

    def pixels(self, number: int) -> Tensor:
        """Indices of a tile's pixels; beyond the image it is reflected."""
        period = max(1, 2 * (self.length - 1))
        index = (self.start(number) + torch.arange(self.tile)) % period
        return torch.minimum(index, period - index).clamp(max=self.length - 1)

    def weights(self, number: int) -> Tensor:
        """Weights of a tile's pixels; those of all tiles sum to 1 at every pixel.

        They rise in the middle half of an overlap. In its outer quarter, where a network sees the border of the tile,
        they are 0.
        """
        rising = 2 * (torch.arange(self.overlap) + 0.5) / max(1, self.overlap) - 0.5
        ramp = torch.sin(torch.pi / 2 * rising.clamp(0, 1)).square()
        weights = torch.ones(self.tile)
        if number > 0:
            weights[: self.overlap] = ramp
        if number < self.count - 1:
            weights[self.tile - self.overlap :] = ramp.flip(0)
        return weights


def in_tiles(function: Callable[[Tensor], Tensor], x: Tensor, tile: Size, overlap: Size, batch_size: int) -> Tensor:
    """Applies a function to an image in overlapping tiles, in memory that does not depend on the size of the image.

    Args:
        function: maps tiles `(N, C, *tile)` to results with the same height and width.
        x: image `(C, H, W)`, of any height and width.
        tile: height and width of a tile.
        overlap: pixels that neighbouring tiles share, vertically and horizontally; at most half a tile.
        batch_size: tiles per call of the function.

    Returns:
        The result `(C', H, W)`, on the CPU.
    """
    rows, columns = (Axis(*sides) for sides in zip(x.shape[1:], tile, overlap, strict=True))
    places = list(product(range(rows.count), range(columns.count)))
    result = torch.empty(0)
    for first in range(0, len(places), batch_size):
        some = places[first : first + batch_size]
        parts = [x[:, rows.pixels(i).to(x.device)][:, :, columns.pixels(j).to(x.device)] for i, j in some]
        outputs = function(torch.stack(parts)).cpu()
        if not len(result):
            result = torch.zeros(outputs.shape[1], *x.shape[1:], dtype=outputs.dtype)
        for (i, j), output in zip(some, outputs, strict=True):
            weighted = output * rows.weights(i)[:, None].to(output) * columns.weights(j).to(output)
            place = result[:, rows.start(i) : rows.start(i) + tile[0], columns.start(j) : columns.start(j) + tile[1]]
            place += weighted[:, : place.shape[1], : place.shape[2]]
    return result
