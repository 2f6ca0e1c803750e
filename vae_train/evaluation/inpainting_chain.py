"""A Markov chain of z and the hidden values of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.evaluation.encodings import has_real_latents
from vae_train.evaluation.inpainting_target import HiddenValues, Steps, per_image
from vae_train.model.base import SingleLatent
from vae_train.rng import Rng

SEARCH_FRACTION = 0.5
"""Fraction of a chain that only searches for z that explains the seen values."""

FILLS = 256
"""Number of the model's samples that hidden values are filled with in the search."""

WALK_SCALES = -2.5, -0.5
"""Range of log10 of the standard deviation of a random walk, in standard deviations of encodings."""

WALK_FRACTION = 0.3
"""Probability that a step of a random walk moves an element of z."""


@dataclass(frozen=True)
class Guide:
    """What the chains of a model search with and move by."""

    fills: Tensor
    """(M, C, H, W) means of p(x | z) for samples of the prior."""
    spread: Tensor | None
    """(*latent_shape) standard deviation of encodings; None if z is not in R^D."""

    @classmethod
    def of(cls, model: SingleLatent, rng: Rng) -> Guide:
        """The guide of a model."""
        y = None if model.condition is None else model.condition.cycle(FILLS, model.device)
        fills = model.sample(FILLS, rng, y=y).mean
        spread = model.encode(fills, y).sample(rng, 1)[0].std(0) if has_real_latents(model) else None
        return cls(fills, spread)


def run_chain(target: HiddenValues, guide: Guide, steps: Steps) -> tuple[Tensor, Tensor]:
    """Runs a chain for every image, from the mean image of the model.

    Returns:
        z with shape `(B, *latent_shape)`, and the fraction of proposals that were accepted after the search, `(B,)`.
    """
    chain, search = _Chain(target, guide, steps.rng(-1)), int(SEARCH_FRACTION * steps.count)
    accepted = torch.zeros_like(chain.score)
    for step, rng in steps.taken():
        if step < search:
            chain.search(rng, from_samples=step % 2 == 0)
        elif step % 2 and guide.spread is not None:
            accepted += chain.walk(rng, guide.spread)
        else:
            accepted += chain.gibbs(rng)
    return chain.z, accepted / (steps.count - search)


class _Chain:
    """The state of the chains of a batch; `gibbs` and `walk` have the stationary distribution p(z | seen)."""

    def __init__(self, target: HiddenValues, guide: Guide, rng: Rng) -> None:
        self.target, self.guide = target, guide
        self.z, self.score, self.log_weight = self._candidate(target.filled(guide.fills.mean(0)), rng)

    def search(self, rng: Rng, from_samples: bool) -> None:
        """Encodes the seen values with others, and accepts z by the weights of importance sampling.

        Args:
            rng: the source of the noise.
            from_samples: whether hidden values come from samples of the model, or from p(x | z) of the chain.
        """
        if from_samples:
            index = (rng.uniform((1, len(self.z)))[0] * len(self.guide.fills)).long()
            x = self.guide.fills[index]
        else:
            x = self.target.drawn(self.target.decode(self.z), rng)
        new, score, log_weight = self._candidate(self.target.filled(x), rng)
        accept = self._move(new, score, log_weight - self.log_weight, rng)
        self.log_weight = torch.where(accept, log_weight, self.log_weight)

    def gibbs(self, rng: Rng) -> Tensor:
        """Draws the hidden values from p(x | z), and proposes z from q(z | x).

        Returns:
            (B,) bool, whether the proposals were accepted.
        """
        target, px = self.target, self.target.decode(self.z)
        x = target.drawn(px, rng)
        q = target.proposal(target.filled(x), rng)
        new = q.sample(rng, 1)[0]
        other = target.decode(new)

        def log_ratio(z: Tensor, px: Distribution) -> Tensor:
            return target.p.log_prob(z) + px.log_prob(x) - q.log_prob(z)

        score = target.p.log_prob(new) + other.log_prob(target.x, target.seen)
        return self._move(new, score, log_ratio(new, other) - log_ratio(self.z, px), rng)

    def walk(self, rng: Rng, spread: Tensor) -> Tensor:
        """Proposes a random step of z.

        Returns:
            (B,) bool, whether the proposals were accepted.
        """
        shape, (low, high) = (1, *self.z.shape), WALK_SCALES
        scale = 10 ** (low + (high - low) * rng.uniform(shape[:2])[0])
        is_moved = rng.uniform(shape)[0] < WALK_FRACTION
        step = per_image(scale, self.z) * spread * rng.normal(shape)[0]
        new = self.z + torch.where(is_moved, step, 0.0)
        score = self.target.log_joint(new)
        return self._move(new, score, score - self.score, rng)

    def _candidate(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """A sample z from q(z | x), log p(seen, z), and log p(seen, z) - log q(z | x)."""
        q = self.target.proposal(x, rng)
        z = q.sample(rng, 1)[0]
        score = self.target.log_joint(z)
        return z, score, score - q.log_prob(z)

    def _move(self, new: Tensor, score: Tensor, log_ratio: Tensor, rng: Rng) -> Tensor:
        """Accepts proposals with probability min(1, exp(log_ratio)); returns which, `(B,)`."""
        accept = rng.uniform((1, len(new)))[0].log() < log_ratio
        self.z = torch.where(per_image(accept, new), new, self.z)
        self.score = torch.where(accept, score, self.score)
        return accept
