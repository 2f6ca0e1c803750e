"""-log p(x) by importance sampling: the bound of Burda et al. (2016, eq. 8) with many draws, used as an estimate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vae_train.batch import Batch, Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.model.base import LatentVariableModel
from vae_train.rng import BlockRng, SampleRng

CURVE = (1, 10, 100, 500, 1000, 5000)
"""Numbers of draws at which the estimate is looked at on the way."""

PRESETS = (5000, 1000, 500, 100)
"""Numbers of draws that `largest_that_fits` chooses from; 5000 is what papers report."""

IMAGES = BlockRng.BLOCK
"""Images at a time: the noise comes in blocks of as many."""

TRIED = 2
"""Passes that are timed, after one that is not."""


class Importance(NamedTuple):
    """Estimates of log p(x) in nats, at least: E[estimate] <= log p(x) for every number of draws."""

    draws: tuple[int, ...]
    """Numbers of draws per image, ascending."""
    log_p: Tensor
    """(len(draws), N) float64, for every image."""
    seconds: float
    """What the estimate took."""

    @property
    def rate(self) -> float:
        """Draws of z, of whatever image, per second."""
        return self.draws[-1] * self.log_p.shape[1] / self.seconds


@torch.no_grad()
def importance(
    model: LatentVariableModel,
    images: Fetched,
    draws: int,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    at_once: int | None = None,
    told: Callable[[int], None] = lambda count: None,
) -> Importance:
    """log 1/K sum_k p(x, z_k) / q(z_k | x) for every image, z_k ~ q(z | x), with a streaming log-sum-exp in float64.

    Args:
        model: the model, on `device`.
        images: the split.
        draws: K, of z per image.
        seed: decides z. The noise is a function of (seed, block of images, block of draws): `at_once` changes rounding
            only.
        device: where the noise is made.
        at_once: draws of every image in one pass; None for what `fitting` says.
        told: called with the number of images behind every one of their blocks.
    """
    begin = time.perf_counter()
    points = (*(k for k in CURVE if k < draws), draws)
    at_once = at_once or fitting(model, images, device)
    found = []
    for start, batch in evaluation_batches(images, IMAGES, device):
        total = LogMeanExp(len(batch.x), points, torch.device(device))
        for first in range(0, draws, at_once):
            count = min(at_once, draws - first)
            total.add(_log_weights(model, batch, start, first, count, seed, device))
        found.append(total.values().cpu())
        told(len(batch.x))
    return Importance(points, torch.cat(found, 1), time.perf_counter() - begin)


class LogMeanExp:
    """log of the mean of exp(w) over a stream of w, at some points of the stream.

    Args:
        size: how many streams there are side by side.
        points: numbers of values at which the mean is noted, ascending.
        device: where the values are.
    """

    def __init__(self, size: int, points: Sequence[int], device: torch.device) -> None:
        # Apple's GPUs have no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sum = torch.full((size,), -math.inf, dtype=dtype, device=device)
        self._points, self._noted, self._count = list(points), list[Tensor](), 0

    def add(self, values: Tensor) -> None:
        """Goes on with `values`, `(K, size)`."""
        values = values.to(self._sum.dtype)
        while self._points and self._points[0] <= self._count + len(values):
            point = self._points.pop(0)
            self._noted.append(self._with(values[: point - self._count]) - math.log(point))
        self._sum, self._count = self._with(values), self._count + len(values)

    def values(self) -> Tensor:
        """(len(points), size)."""
        return torch.stack(self._noted)

    def _with(self, values: Tensor) -> Tensor:
        return torch.logaddexp(self._sum, values.logsumexp(0)) if len(values) else self._sum


def fitting(model: LatentVariableModel, images: Fetched, device: torch.device | str, memory: float = 2**26) -> int:
    """Draws per image and pass whose largest activations take up about `memory` bytes: a power of two.

    More of them leave a processor's caches, and are slower.

    Args:
        model: the model.
        images: what is scored.
        device: where.
        memory: bytes.
    """
    sizes: list[int] = []

    def note(module: nn.Module, given: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            sizes.append(out[0].numel())

    handles = [m.register_forward_hook(note) for m in model.modules() if not list(m.children())]
    try:
        _log_weights(model, images.fetch(torch.zeros(1, dtype=torch.int64)), 0, 0, 1, 0, device)
    finally:
        for handle in handles:
            handle.remove()
    # An activation and what the likelihood makes of it are alive together.
    most = memory / (4 * 4 * IMAGES * max([*sizes, 1]))
    return 2 ** max(0, min(9, int(math.log2(max(most, 1)))))


def seconds_per_draw(
    model: LatentVariableModel, images: Fetched, device: torch.device | str, at_once: int, seed: int = 0
) -> float:
    """Seconds that one draw of z for one image takes, measured on a few passes."""
    device = torch.device(device)
    count = min(IMAGES, len(images))
    batch = images.fetch(torch.arange(count, device=device), BlockRng(seed, "data", 0, device=device))

    def go(passes: int) -> None:
        for _ in range(passes):
            _log_weights(model, batch, 0, 0, at_once, seed, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    go(1)
    begin = time.perf_counter()
    go(TRIED)
    return (time.perf_counter() - begin) / (TRIED * at_once * count)


def largest_that_fits(seconds: float, images: int, minutes: float) -> int:
    """The largest of `PRESETS` that is done within `minutes`; the smallest where none is.

    Args:
        seconds: of one draw for one image.
        images: how many.
        minutes: the budget.
    """
    return next((draws for draws in PRESETS if seconds * images * draws <= 60 * minutes), PRESETS[-1])


@torch.no_grad()
def _log_weights(
    model: LatentVariableModel, batch: Batch, start: int, first: int, count: int, seed: int, device: torch.device | str
) -> Tensor:
    """log p(x, z) - log q(z | x) of draws `first` to `first` + `count`, with shape `(count, B)`."""
    return model(batch, SampleRng(seed, "importance", start, first, device=device), count).log_weight()
