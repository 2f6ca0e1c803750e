"""Random numbers as a function of (seed, stream, position); all noise of a run comes from here.

Nothing uses PyTorch's global generator. A resumed run, a repeated evaluation and a run on another number of devices see
the same numbers, because no number depends on how many were generated before it.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self, override


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by a hash of `key`, so that similar keys give unrelated numbers."""
    return torch.Generator(device).manual_seed(_hashed(key))


def _hashed(key: tuple[int | str, ...]) -> int:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


MIN_UNIFORM = 1e-30
"""Lower bound of uniform numbers before their logarithm."""

Request = tuple[Callable[..., Tensor], Tensor]
"""torch.randn or torch.rand, and its result."""

IN_PLACE: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    torch.randn: Tensor.normal_,
    torch.rand: Tensor.uniform_,
}
"""Function -> its in-place form with the same numbers; calls with `out=` take more than twice as long."""


class Rows(NamedTuple):
    """Images `start` to `stop` of a batch of `total`."""

    start: int
    stop: int
    total: int


class Rng:
    """The noise of one position of one stream.

    Args:
        seed: the run's seed.
        stream: the purpose of the noise ("train", "data", …).
        position: the step, or another position within the stream.
        device: where the numbers are generated.
    """

    _rows: Rows | None = None
    _generator: torch.Generator | None = None
    _calls = 0

    def __init__(self, seed: int, stream: str, *position: int, device: torch.device | str = "cpu") -> None:
        self._seed, self._stream, self._position, self._device = seed, stream, position, torch.device(device)

    def part(self, rows: Rows) -> Self:
        """The same noise, restarted, for some images of the batch.

        The noise is still generated for the whole batch, so an image has the same numbers in any microbatch.
        """
        part = copy.copy(self)
        part._rows, part._generator, part._calls = rows, None, 0
        return part

    @property
    def rows(self) -> Rows | None:
        """The images of the batch that the noise is for; None for all of them."""
        return self._rows

    @contextmanager
    def uncut(self) -> Iterator[None]:
        """Within its block requests are not cut to the images of a part: their numbers are for all parts."""
        rows, self._rows = self._rows, None
        try:
            yield
        finally:
            self._rows = rows

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers with shape `shape`, by convention `(K, B, *event)`."""
        return self._take(torch.randn, shape, dtype)

    def uniform(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Numbers uniform on [0, 1) with shape `shape`, by convention `(K, B, *event)`."""
        return self._take(torch.rand, shape, dtype)

    def gumbel(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard Gumbel numbers with shape `shape`; the largest of logits plus such numbers is a sample."""
        return -torch.log(-torch.log(self.uniform(shape, dtype).clamp(min=MIN_UNIFORM)))

    def _take(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        if self._rows is None:
            return self._make(make, shape, dtype)
        num_samples, _, *event = shape
        start, stop, total = self._rows
        return self._make(make, (num_samples, total, *event), dtype)[:, start:stop]

    def _make(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        if self._generator is None:
            self._generator = generator(self._seed, self._stream, *self._position, device=self._device)
        return make(tuple(shape), generator=self._generator, device=self._device, dtype=_drawable(dtype))


class BlockRng(Rng):
    """Noise of evaluation, keyed by blocks of images, so that the batch size only affects rounding.

    Args:
        seed: the evaluation's seed.
        stream: the purpose of the noise.
        start: index of the batch's first image within its split.
        device: where the numbers are generated.
    """

    BLOCK = 64

    def __init__(self, seed: int, stream: str, start: int, device: torch.device | str = "cpu") -> None:
        super().__init__(seed, stream, start, device=device)
        self._start = start

    def _take(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        noise = self._blocks(make, shape, dtype)
        self._calls += 1
        return noise

    def _blocks(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype, *further: int) -> Tensor:
        """The numbers of one request; `further` extends the key."""
        num_samples, batch, *event = shape
        first, last = self._start // self.BLOCK, (self._start + batch - 1) // self.BLOCK
        blocks = []
        for block in range(first, last + 1):
            source = generator(self._seed, self._stream, block, self._calls, *further, device=self._device)
            size = (num_samples, self.BLOCK, *event)
            blocks.append(make(size, generator=source, device=self._device, dtype=_drawable(dtype)))
        skipped = self._start - first * self.BLOCK
        return torch.cat(blocks, 1)[:, skipped : skipped + batch]


class SampleRng(BlockRng):
    """Noise of evaluation with many samples of z per image, keyed by blocks of images and of samples.

    The batch size and the number of samples per pass only affect rounding.

    Args:
        seed: the evaluation's seed.
        stream: the purpose of the noise.
        start: index of the batch's first image within its split.
        first: index of the first sample of every image.
        device: where the numbers are generated.
    """

    DRAWS = 64

    def __init__(self, seed: int, stream: str, start: int, first: int, device: torch.device | str = "cpu") -> None:
        super().__init__(seed, stream, start, device=device)
        self._first = first

    def _take(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        count, *rest = shape
        begin, end = self._first // self.DRAWS, (self._first + count - 1) // self.DRAWS
        blocks = [self._blocks(make, (self.DRAWS, *rest), dtype, block) for block in range(begin, end + 1)]
        self._calls += 1
        skipped = self._first - begin * self.DRAWS
        return torch.cat(blocks)[skipped : skipped + count]


class ChainRng(BlockRng):
    """Noise of one step of several independent Markov chains per image, keyed by image, chain and step.

    The batch has chain after chain, each with the same images. Its size and the number of chains only affect rounding.

    Args:
        seed: the evaluation's seed.
        stream: the purpose of the noise.
        start: index of the batch's first image within its split.
        step: number of the step.
        chains: numbers of the chains.
        device: where the numbers are generated.
    """

    BLOCK = 8  # often few images have many steps, and noise is generated for whole blocks

    def __init__(
        self, seed: int, stream: str, start: int, step: int, chains: range, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(seed, stream, start, device=device)
        self._step, self._chains = step, chains

    def _take(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        num_samples, batch, *event = shape
        size = (num_samples, batch // len(self._chains), *event)
        noise = torch.cat([self._blocks(make, size, dtype, self._step, chain) for chain in self._chains], 1)
        self._calls += 1
        return noise


class NoiseBuffers:
    """The numbers of an `Rng` in tensors with fixed addresses, for compiled and captured steps.

    The first pass records the requests. At later positions the same tensors are filled with the numbers that
    `Rng(seed, stream, position)` would return for these requests.

    Args:
        seed: the run's seed.
        stream: see `Rng`.
        device: where the numbers are generated.
    """

    def __init__(self, seed: int, stream: str, device: torch.device | str) -> None:
        self._seed, self._stream, self._device = seed, stream, torch.device(device)
        self._generator = torch.Generator(self._device)
        self._position: int | None = None
        self._requests: list[Request] = []
        self._recorded = False

    def like(self) -> NoiseBuffers:
        """Buffers with new tensors for the same requests."""
        other = NoiseBuffers(self._seed, self._stream, self._device)
        other._requests = [(make, torch.empty_like(tensor)) for make, tensor in self._requests]
        other._recorded = self._recorded
        return other

    def seek(self, position: int) -> None:
        """Generates the numbers of `position`."""
        self._recorded = self._recorded or self._position is not None
        self._position = position
        if self._requests:
            self._generator.manual_seed(_hashed((self._seed, self._stream, position)))
            for make, tensor in self._requests:
                IN_PLACE[make](tensor, generator=self._generator)

    def rng(self, rows: Rows | None = None) -> Rng:
        """An `Rng` that returns the numbers in the order of the first pass.

        Args:
            rows: the images of the batch that the numbers are for; None for all of them.
        """
        assert self._position is not None, "call seek() before rng()"
        noise: Rng = FixedNoise([tensor for _, tensor in self._requests])
        if not self._recorded:
            noise = RecordingRng(self._requests, self._seed, self._stream, self._position, device=self._device)
        noise._rows = rows
        return noise


class FixedNoise(Rng):
    """An `Rng` that returns given tensors in order.

    Args:
        numbers: tensors with the shapes of the requests, for the whole batch.
    """

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        self.numbers = numbers

    def all(self) -> tuple[Tensor, ...]:
        """All numbers, for the images of the microbatch."""
        return tuple(map(self._cut, self.numbers))

    def _take(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        noise = self._cut(self.numbers[self._calls])
        self._calls += 1
        if noise.shape != tuple(shape):
            raise RuntimeError(
                f"noise with shape {tuple(shape)} was requested, but the recorded shape is {tuple(noise.shape)}"
            )
        return noise

    def _cut(self, numbers: Tensor) -> Tensor:
        return numbers if self._rows is None else numbers[:, self._rows.start : self._rows.stop]


class RecordingRng(Rng):
    """An `Rng` that records its requests and numbers, for the whole batch."""

    def __init__(self, requests: list[Request], *key: Any, **options: Any) -> None:
        super().__init__(*key, **options)
        self._requests: list[Request] | None = requests

    @override
    def part(self, rows: Rows) -> Self:
        part = super().part(rows)
        first = 0 if self._rows is None else self._rows.start
        part._requests = self._requests if rows.start == first else None  # all parts request the same noise
        return part

    def _make(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        made = super()._make(make, shape, dtype)
        if self._requests is not None:
            self._requests.append((make, made))
        return made


def _drawable(dtype: torch.dtype) -> torch.dtype:
    """Returns float32 in place of half precisions, which are too coarse for noise."""
    return torch.float64 if dtype == torch.float64 else torch.float32
