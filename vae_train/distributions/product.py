"""Products of independent distributions, log p(x) = sum_i log p_i(x_i)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.rng import Rng


class Product(Distribution):
    """Independent distributions whose events are concatenated along the last dimension.

    Args:
        parts: distributions with the same batch, and events that differ in the last dimension only.
    """

    def __init__(self, parts: Sequence[Distribution]) -> None:
        self.parts = tuple(parts)
        self.sizes = [part.event_shape[-1] for part in parts]
        first = parts[0]
        if any(p.batch_shape != first.batch_shape or p.event_shape[:-1] != first.event_shape[:-1] for p in parts):
            shapes = ", ".join(f"{(*p.batch_shape, *p.event_shape)}" for p in parts)
            raise ValueError(f"the parts of a product may differ in the last dimension only, not {shapes}")
        self.is_factorized = all(part.is_factorized for part in parts)
        self.has_density = all(part.has_density for part in parts)
        event = torch.Size([*first.event_shape[:-1], sum(self.sizes)])
        super().__init__(first.batch_shape + event, len(event))

    @property
    @override
    def mean(self) -> Tensor:
        return torch.cat([part.mean for part in self.parts], -1)

    @property
    @override
    def variance(self) -> Tensor:
        return torch.cat([part.variance for part in self.parts], -1)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        return torch.cat(
            [part.log_prob_elementwise(own) for part, own in zip(self.parts, self.split(x), strict=True)], -1
        )

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        masks = [None] * len(self.parts) if mask is None else self.split(mask.expand(x.shape))
        every = zip(self.parts, self.split(x), masks, strict=True)
        return torch.stack([part.log_prob(own, counted) for part, own, counted in every]).sum(0)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return torch.cat([part.sample(rng, num, temperature) for part in self.parts], -1)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The elements of `x` that belong to each part."""
        return x.split(self.sizes, -1)
