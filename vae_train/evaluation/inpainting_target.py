"""The distribution p(z, hidden | seen) of partly hidden images, whose parts every sampler of it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_train.batch import Batch
from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import Normal
from vae_train.model.base import SingleLatent
from vae_train.rng import Rng


class HiddenValues:
    """The hidden values of B images, and what a model knows about them.

    Args:
        model: the model.
        batch: B images; `Batch.mask` is True for seen values, None if all are.
    """

    def __init__(self, model: SingleLatent, batch: Batch) -> None:
        self.model, self.x, self.y = model, batch.x, batch.y
        self.seen = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
        # The prior may depend on the condition, and only a trace has it.
        self.p = model(batch, Rng(0, "unused", device=batch.x.device)).latents[0].p

    def __len__(self) -> int:
        return len(self.x)

    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) for z with shape `(*K, B, *latent_shape)`."""
        return self.model.decode(z, self.y)

    def log_joint(self, z: Tensor) -> Tensor:
        """log p(seen, z) with shape `(*K, B)`, for z with shape `(*K, B, *latent_shape)`."""
        return self.p.log_prob(z) + self.decode(z).log_prob(self.x, self.seen)

    def filled(self, hidden: Tensor) -> Tensor:
        """The images with hidden values from images `hidden`, `(B, C, H, W)` or one `(C, H, W)`, rounded to levels."""
        levels = self.model.levels
        hidden = hidden if levels is None else _rounded(hidden, levels).clamp(0, 1)
        return torch.where(self.seen, self.x, hidden)

    def drawn(self, px: Distribution, rng: Rng) -> Tensor:
        """The images with hidden values from p(x | z), `(B, C, H, W)`.

        With levels, values are on their grid. They may be outside of [0, 1] if the density is, so that `log_prob` fits.
        """
        x, levels = px.sample(rng, 1)[0], self.model.levels
        return torch.where(self.seen, self.x, x if levels is None else _rounded(x, levels))

    def proposal(self, x: Tensor, rng: Rng) -> Distribution:
        """q(z | x) for filled images.

        It is a normal distribution with its moments if the density of q is only known at its own samples.
        """
        q = self.model.encode(x, self.y)
        if getattr(getattr(self.model, "posterior", None), "has_tractable_density", True):
            return q
        moments = q.summary(rng)
        return Normal(moments["mean"], moments["std"].log(), len(q.event_shape))


def per_image(values: Tensor, z: Tensor) -> Tensor:
    """Values `(B,)` of images in a shape that broadcasts against z, `(B, *latent_shape)`."""
    return values.view(-1, *[1] * (z.dim() - 1))


def _rounded(x: Tensor, levels: int) -> Tensor:
    return (x * (levels - 1)).round() / (levels - 1)


@dataclass(frozen=True)
class Steps:
    """The steps of a sampler.

    Args:
        count: number of steps.
        rng: the noise of a step, by its number.
        progress: called with the number of images after every step.
        images: number of images.
    """

    count: int
    rng: Callable[[int], Rng]
    progress: Callable[[int], object]
    images: int

    def taken(self, size: int = 1) -> Iterator[tuple[int, Rng]]:
        """Yields the number and the noise of every step, or of the first of `size` steps that are taken at once."""
        for first in range(0, self.count, size):
            yield first, self.rng(first)
            self.progress(self.images * min(size, self.count - first))
