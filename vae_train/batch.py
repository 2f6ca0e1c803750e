"""What data and models share: batches of images, and the facts about a data set."""

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
    """Images with their labels, and what a model needs to know to score them."""

    x: Tensor
    """(B, C, H, W) float32, the target; in [0, 1] unless a `Preprocessing` maps it elsewhere."""
    y: Tensor | None = None
    """(B, F) int64 labels or factors of variation."""
    encoder_input: Tensor | None = None
    """(B, C, H, W) what the encoder sees; None if that is `x`."""
    mask: Tensor | None = None
    """(B, 1 or C, H, W) bool, True for observed pixels; None if all are observed."""
    log_det: Tensor | None = None
    """(B,) log |det dx/dv| in nats, where x is a map of the values v whose density is reported; None for 0."""
    log_bins: float | None = None
    """Nats per dimension that turn a density of v into the mass of a pixel's level; None if v has no levels."""

    def part(self, start: int, stop: int) -> Batch:
        """Images `start` to `stop` of the batch."""
        cut: dict[str, Any] = {k: value[start:stop] for k, value in self._asdict().items() if isinstance(value, Tensor)}
        return self._replace(**cut)


class Raw(NamedTuple):
    """Images as they are stored, before anything is computed from them."""

    pixels: Tensor
    """(B, C, H, W), uint8 levels or float32 values."""
    y: Tensor | None
    """(B, F) int64 labels, or None."""


class Fetched(Protocol):
    """Images that are fetched by number."""

    def __len__(self) -> int:
        """The number of images."""

    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        """The images with the numbers `index`, an int64 tensor with shape `(B,)`."""


class Images(Fetched, Protocol):
    """One split of a data set."""

    @property
    def resident(self) -> bool:
        """Whether `gather` only computes on the training device and never waits for memory or a file."""

    def gather(self, index: Tensor) -> Raw:
        """The stored images with the numbers `index`, int64 with shape `(B,)`, on the training device."""

    def prefetch(self, indices: Iterator[Tensor]) -> Iterator[Raw]:
        """Yields `gather` of each index, read in advance by worker processes."""

    def finish(self, raw: Raw, rng: Rng | None = None) -> Batch:
        """Computes the batch that a model receives, on the training device. Nothing is random without `rng`."""

    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        """The images with the numbers `index`: `gather`, then `finish`."""
        return self.finish(self.gather(index), rng)


class Factor(NamedTuple):
    """A column of `Batch.y`: a class label or a factor of variation."""

    name: str
    size: int
    """Its values are 0 to size - 1."""
    values: tuple[Any, ...] | None = None
    """What the values stand for, if known: class names, angles, …"""


class DataFacts(NamedTuple):
    """What is known of a data set without its pixels.

    Parameters of constructors that have the name of a field or property are filled in from it.
    """

    data_shape: Shape
    """(C, H, W) of one image."""
    levels: int | None
    """Number of values of a pixel that a likelihood scores: 2 for binary data, None for continuous data."""
    num_train: int
    """Number of training images."""
    factors: tuple[Factor, ...] = ()
    """The columns of `Batch.y`; empty if there are no labels."""
    bounds: tuple[float, float] | None = None
    """The numbers in the file that become 0 and 1, if its values are continuous; None for levels."""

    @property
    def classes(self) -> int | None:
        """Number of classes; None without labels or with several factors of variation."""
        return self.factors[0].size if len(self.factors) == 1 else None

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """Number of values of each column of `Batch.y`."""
        return tuple(factor.size for factor in self.factors)


def evenly_spaced(count: int, limit: int) -> Tensor:
    """At most `limit` evenly spaced numbers from 0 to count - 1, both included, as int64."""
    return torch.linspace(0, count - 1, min(limit, count), dtype=torch.float64).round().long()
