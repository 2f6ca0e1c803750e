"""An example of every distribution, and what the properties of `tests/test_distributions.py` need to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_train.distributions.base import Affine, Distribution
from vae_train.distributions.bernoulli import Bernoulli
from vae_train.distributions.normal import DequantizedNormal, Normal
from vae_train.draws import generator

Shape = tuple[int, ...]
Make = Callable[[Shape, Shape, torch.dtype, int], Distribution]


@dataclass
class Example:
    """How one is made, and what it promises beyond what all distributions promise."""

    make: Make
    """(batch, event, dtype, seed) -> a distribution."""
    levels: int | None = None
    """Values lie on the grid k / (levels - 1); 2 for bits."""
    events: tuple[Shape, ...] = ((), (4,), (1, 2, 3))
    """Event shapes that it takes."""
    batches: tuple[Shape, ...] = ((), (5,), (2, 5))
    """Batch shapes that it takes."""
    masks: bool = True
    """Whether elements may be unobserved."""
    scaled: bool = True
    """Whether a temperature is a factor on the distance of draws from the mean."""
    mean: bool = True
    """Whether it has a mean, and the mean of draws is it."""


def numbers(shape: Shape, seed: int, *key: int) -> Tensor:
    """Standard normal float64 numbers."""
    return torch.randn(shape, generator=generator(seed, "example", *key), dtype=torch.float64)


def _normal(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Normal:
    mean, log_scale = numbers((*batch, *event), seed, 0), 0.5 * numbers((*batch, *event), seed, 1)
    return Normal(mean.to(dtype), log_scale.to(dtype), len(event))


def _affine(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Affine:
    shift, log_scale = numbers((*batch, *event), seed, 2), 0.5 * numbers((*batch, *event), seed, 3)
    return Affine(_normal(batch, event, dtype, seed), shift.to(dtype), log_scale.to(dtype))


def _dequantized(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> DequantizedNormal:
    mean, log_scale = numbers((*batch, *event), seed, 0).sigmoid(), numbers((*batch, *event), seed, 1).sigmoid() - 2.5
    return DequantizedNormal(mean.to(dtype), log_scale.to(dtype), 17, len(event))


def _bernoulli(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Bernoulli:
    return Bernoulli(numbers((*batch, *event), seed).to(dtype), len(event))


EXAMPLES: dict[type[Distribution], Example] = {
    Normal: Example(_normal),
    Affine: Example(_affine),
    DequantizedNormal: Example(_dequantized, levels=17),
    Bernoulli: Example(_bernoulli, levels=2, scaled=False),
}
