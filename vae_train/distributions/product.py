"""Several distributions side by side, log p(x) = sum_i log p_i(x_i)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.draws import Draw


class Product(Distribution):
    """Independent distributions whose events lie one after the other along the last dimension.

    Args:
        parts: distributions with the same batch, and events that differ in the last dimension only.
    """

    def __init__(self, parts: Sequence[Distribution]) -> None:
        self.parts = tuple(parts)
        self.sizes = [part.event_shape[-1] for part in parts]
        first = parts[0]
        if any(p.batch_shape != first.batch_shape or p.event_shape[:-1] != first.event_shape[:-1] for p in parts):
            shapes = ", ".join(f"{(*p.batch_shape, *p.event_shape)}" for p in parts)
            raise ValueError(f"parts that stand side by side differ in the last dimension only, not {shapes}")
        self.factorised = all(part.factorised for part in parts)
        self.dense = all(part.dense for part in parts)
        event = torch.Size([*first.event_shape[:-1], sum(self.sizes)])
        super().__init__(first.batch_shape + event, len(event))

    @property
    def mean(self) -> Tensor:
        """See `Distribution.mean`."""
        return torch.cat([part.mean for part in self.parts], -1)

    @property
    def variance(self) -> Tensor:
        """See `Distribution.variance`."""
        return torch.cat([part.variance for part in self.parts], -1)

    def terms(self, x: Tensor) -> Tensor:
        """See `Distribution.terms`."""
        return torch.cat([part.terms(own) for part, own in zip(self.parts, self.split(x), strict=True)], -1)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """See `Distribution.log_prob`."""
        seen = [None] * len(self.parts) if observed is None else self.split(observed.expand(x.shape))
        every = zip(self.parts, self.split(x), seen, strict=True)
        return torch.stack([part.log_prob(own, counts) for part, own, counts in every]).sum(0)

    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """See `Distribution.sample`."""
        return torch.cat([part.sample(draw, num, temperature) for part in self.parts], -1)

    def detach(self) -> Product:
        """See `Distribution.detach`."""
        return Product([part.detach() for part in self.parts])

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """What of `x` belongs to each part."""
        return x.split(self.sizes, -1)
