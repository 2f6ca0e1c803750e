"""What data sets and models share: batches of images, and the facts about a data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from vae_train.rng import Rng

Shape = tuple[int, ...]


Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Batch(NamedTuple):
    """Some images and what is known of them."""

    x: Tensor
    """(B, C, H, W) float32, the target: in [0, 1], unless `Preprocessing` maps it elsewhere."""
    y: Tensor | None = None
    """(B, F) int64 labels or factors of variation."""
    encoder_input: Tensor | None = None
    """(B, C, H, W) what the encoder sees, where it is not `x`."""
    mask: Tensor | None = None
    """(B, 1 or C, H, W) bool, the pixels that count; None where all do."""
    log_det: Tensor | None = None
    """(B,) log |det dx/dv| in nats for the values v that the data set means, where x is a map of them; None for 0."""
    log_bins: float | None = None
    """Nats per dimension that turn a density of v into the mass of a pixel's level; None where v has no levels."""

    def part(self, start: int, stop: int) -> Batch:
        """Images `start` to `stop` of the batch."""
        cut: dict[str, Any] = {k: part[start:stop] for k, part in self._asdict().items() if isinstance(part, Tensor)}
        return self._replace(**cut)


class Raw(NamedTuple):
    """Images as they are stored, before anything is computed from them."""

    pixels: Tensor
    """(B, C, H, W), uint8 levels or float32 values."""
    y: Tensor | None
    """(B, F) int64, or None."""


class Fetched(Protocol):
    """Images that can be asked for by number."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        """The images with the numbers `index`, an int64 tensor with shape `(B,)`."""
        ...


class Images(Fetched, Protocol):
    """One split of a data set."""

    @property
    def resident(self) -> bool:
        """Whether `gather` is an operation on the training device, which waits for nothing."""
        ...

    def gather(self, index: Tensor) -> Raw:
        """The stored images with the numbers `index`, an int64 tensor with shape `(B,)`; on the training device."""
        ...

    def ahead(self, indices: Iterator[Tensor]) -> Iterator[Raw]:
        """`gather` of one index after the other, read before they are asked for."""
        ...

    def finish(self, raw: Raw, rng: Rng | None = None) -> Batch:
        """What a model is given: tensor operations on the training device. Nothing is random without a `draw`."""
        ...


class Factor(NamedTuple):
    """A column of `Batch.y`: a class, or a factor of variation."""

    name: str
    size: int
    """Its values are 0 to size - 1."""
    values: tuple[Any, ...] | None = None
    """What they stand for, where that is known: names of classes, angles, …"""


def evenly_spaced(count: int, most: int) -> Tensor:
    """At most `most` of the numbers 0 to count - 1, evenly spread, the first and the last among them, as int64."""
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).round().long()
