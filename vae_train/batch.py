"""Types that data and models share: batches of images, and facts about a data set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vae_train.rng import Rng

Shape = tuple[int, ...]
Layout = Literal["NCHW", "NHWC", "NHW", "NCT", "NTC", "ND"]
"""The order of dimensions in an array of images; N is the index of the image."""
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Batch(NamedTuple):
    """Images with labels, and what a model needs to score them."""

    x: Tensor
    """(B, C, H, W) float32, the target: pixels in [0, 1] or values scaled by `Units`, after preprocessing."""
    y: Tensor | None = None
    """(B, F) int64 labels or factors of variation."""
    encoder_input: Tensor | None = None
    """(B, C, H, W) input of the encoder; None if it is `x`."""
    mask: Tensor | None = None
    """(B, 1 or C, H, W) bool, True for observed pixels; None if all are observed."""
    log_det: Tensor | None = None
    """(B,) log |det dx/dv| in nats, if densities are reported for values v and x is a map of them; None for 0."""
    log_bins: float | None = None
    """Nats per dimension that convert a density of v to a probability of pixel levels; None without levels."""

    def part(self, start: int, stop: int) -> Batch:
        """Images `start` to `stop` of the batch."""
        cut: dict[str, Any] = {k: value[start:stop] for k, value in self._asdict().items() if isinstance(value, Tensor)}
        return self._replace(**cut)


class WholeBatch:
    """The whole batch of which a trace has some images, for losses that depend on all of them.

    This base class is for traces of the whole batch; `vae_train.training.ranks` has one for several processes that
    share a batch. Its results have gradients, so that the weighted mean of the losses of all processes has the gradient
    of the loss of the whole batch.
    """

    def mean(self, x: Tensor) -> Tensor:
        """The mean over all images, from the mean `x` over those of this process."""
        return x

    def gather(self, x: Tensor, dim: int) -> Tensor:
        """The rows of all images along `dim`, from those of this process."""
        return x

    def own(self, x: Tensor, dim: int) -> Tensor:
        """The rows of the images of this process along `dim`, from those of all images."""
        return x

    def norm(self, gradient: Tensor, is_shared: bool) -> Tensor:
        """The L2 norm of the gradient of a mean over all images, with shape `()` and without a gradient.

        Args:
            gradient: the gradient of the mean over the images of this process.
            is_shared: whether it is the gradient with respect to a parameter, instead of a tensor with a row per image.
        """
        return gradient.norm()


WHOLE = WholeBatch()


class Raw(NamedTuple):
    """Stored images, before any transform."""

    pixels: Tensor
    """(B, C, H, W), uint8 levels or float32 values."""
    y: Tensor | None
    """(B, F) int64 labels, or None."""


class Fetched(Protocol):
    """Images that are fetched by index."""

    def __len__(self) -> int:
        """The number of images."""

    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        """The images with indices `index`, int64 with shape `(B,)`."""


class Images(Fetched, Protocol):
    """One split of a data set."""

    @property
    def resident(self) -> bool:
        """Whether `gather` only uses the training device and never waits for host memory or a file."""

    def gather(self, index: Tensor) -> Raw:
        """The stored images with indices `index`, int64 with shape `(B,)`, on the training device."""

    def prefetch(self, indices: Iterator[Tensor]) -> Iterator[Raw]:
        """Yields `gather` of each index, prefetched by worker processes."""

    def finish(self, raw: Raw, rng: Rng | None = None) -> Batch:
        """Applies all transforms, on the training device. Without `rng` nothing is random."""

    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        """The images with indices `index`: `gather`, then `finish`."""
        return self.finish(self.gather(index), rng)


class Factor(NamedTuple):
    """A column of `Batch.y`: a class label or a factor of variation."""

    name: str
    size: int
    """Number of values, which are 0 to size - 1."""
    values: tuple[Any, ...] | None = None
    """Meanings of the values, if known: class names, angles, …"""


class Units(NamedTuple):
    """The affine map between the values v of a file and the model's values, x = (v - shift) / scale.

    Each field has one number per column of vectors or channel of signals, or a single one for all pixels.
    """

    shape: Shape
    """Shape that broadcasts against (C, H, W): (1, 1, D) for vectors, (C, 1, 1) for signals, () for images."""
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    """The smallest value, shown as 0 in plots."""
    high: tuple[float, ...]
    """The largest value, shown as 1 in plots."""

    @classmethod
    def parse(cls, tree: Any) -> Units:
        """Reads units from a mapping by field.

        Raises:
            ValueError: the mapping is invalid.
        """
        try:
            shape, *numbers = (tuple(tree[name]) for name in cls._fields)
            units = cls(shape, *numbers)
            arrays = [units.array(name) for name in cls._fields[1:]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"units are invalid: {error}") from error
        if not np.isfinite(arrays).all() or (arrays[1] <= 0).any():
            raise ValueError("units are invalid: a scale must be positive, and all must be finite")
        return units

    def repeated(self, shape: Shape) -> Units:
        """Repeats the single number of every field for all elements of `shape`."""
        count = math.prod(shape)
        return Units(shape, *(count * numbers for numbers in self[1:]))

    def to_model(self, values: np.ndarray) -> np.ndarray:
        """Maps values `(N, C, H, W)` of the file to x, in float64; returns float32."""
        return ((values - self.array("shift")) / self.array("scale")).astype(np.float32)

    def to_file(self, x: Tensor) -> Tensor:
        """Maps `x`, `(N, C, H, W)`, to values of the file, as float64 on the CPU."""
        return torch.from_numpy(x.cpu().double().numpy() * self.array("scale") + self.array("shift"))

    def to_unit(self, x: Tensor) -> Tensor:
        """Maps `x` so that `low` becomes 0 and `high` becomes 1."""
        factor, offset, _ = _unit_constants(self, x.device)
        return x * factor + offset

    def from_unit(self, x: Tensor) -> Tensor:
        """The inverse of `to_unit`."""
        factor, offset, _ = _unit_constants(self, x.device)
        return (x - offset) / factor

    def with_log_det(self, batch: Batch) -> Batch:
        """Adds log |det dx/dv|, so that log-densities of a batch refer to the values in the file."""
        log_scale = _unit_constants(self, batch.x.device)[2].expand_as(batch.x)
        observed = log_scale if batch.mask is None else torch.where(batch.mask, log_scale, 0.0)
        log_det = -observed.flatten(1).sum(1)
        return batch._replace(log_det=log_det if batch.log_det is None else batch.log_det + log_det)

    def array(self, name: str) -> np.ndarray:
        """A field as a float64 array that broadcasts against (C, H, W)."""
        return np.asarray(getattr(self, name), np.float64).reshape(self.shape)


@lru_cache(maxsize=8)  # copying for every batch would wait for the device
def _unit_constants(units: Units, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Factor and offset of `to_unit`, and log(scale), as float32."""
    shift, scale, low, high = map(units.array, ("shift", "scale", "low", "high"))
    width = np.where(high > low, high - low, 1.0)
    factor, offset, log_scale = (
        torch.from_numpy(numbers.astype(np.float32)).to(device)
        for numbers in map(np.asarray, (scale / width, (shift - low) / width, np.log(scale)))
    )
    return factor, offset, log_scale


class DataFacts(NamedTuple):
    """Facts about a data set that are known without its pixels.

    Constructor parameters with the name of a field or property are filled in from it.
    """

    data_shape: Shape
    """(C, H, W) of one image."""
    levels: int | None
    """Number of values of a pixel that the likelihood scores: 2 for binary data, None for continuous data."""
    num_train: int
    """Number of training images."""
    factors: tuple[Factor, ...] = ()
    """The columns of `Batch.y`; empty if there are no labels."""
    units: Units | None = None
    """The scaling of an array's values; None for pixels with levels."""
    layout: Layout | None = None
    """The order of dimensions in an array file; None for other files."""
    missing: bool = False
    """Whether values may be missing (NaN), see `split_missing`."""
    sample_rate: int | None = None
    """Samples per second of audio; None for other data."""

    @property
    def description(self) -> str:
        """The kind of the data for messages, for instance "grey images of 28x28 pixels with 256 levels"."""
        channels, height, width = self.data_shape
        kinds = {1: "grey images", 3: "colour images"}
        shape = f"{kinds.get(channels, f'images with {channels} channels')} of {height}x{width} pixels"
        if self.layout == "ND":
            shape = f"vectors of {width} columns"
        elif self.layout in ("NCT", "NTC"):
            shape = f"signals of {channels} channel{'s' * (channels > 1)} and {width} steps"
            shape += f" at {self.sample_rate:,} Hz" if self.sample_rate else ""
        return f"{shape} with {'continuous values' if self.levels is None else f'{self.levels:,} levels'}"

    @property
    def column_shape(self) -> Shape:
        """Shape of parameters per column or channel, see `Units.shape`; () for images."""
        return () if self.units is None else self.units.shape

    @property
    def classes(self) -> int | None:
        """Number of classes; None without labels or with several factors of variation."""
        return self.factors[0].size if len(self.factors) == 1 else None

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """Number of values of each column of `Batch.y`."""
        return tuple(factor.size for factor in self.factors)


def split_missing(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the values with 0 for missing ones (NaN), and a mask that is True for the others."""
    observed = ~x.isnan()
    return torch.where(observed, x, 0.0), observed


def evenly_spaced(count: int, limit: int) -> Tensor:
    """At most `limit` evenly spaced indices from 0 to count - 1, including both, as int64."""
    return torch.linspace(0, count - 1, min(limit, count), dtype=torch.float64).round().long()
