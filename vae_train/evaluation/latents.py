"""The latents of images: what describes their posteriors, and samples of z."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from vae_train.batch import Batch, Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.distributions.base import Distribution
from vae_train.model.base import SingleLatent
from vae_train.rng import BlockRng


class Latents:
    """The posteriors q(z | x) of B images.

    Args:
        parts: posteriors of consecutive batches, each with the index of its first image.
    """

    def __init__(self, parts: Sequence[tuple[int, Distribution]]) -> None:
        self.parts = tuple(parts)

    def __len__(self) -> int:
        return sum(q.batch_shape[0] for _, q in self.parts)

    @property
    def mean(self) -> Tensor:
        """The mean of q(z | x), with shape `(B, *latent_shape)`."""
        return self.arrays["mean"]

    @property
    def std(self) -> Tensor:
        """The standard deviation of every element of z, with shape `(B, *latent_shape)`."""
        return self.arrays["std"]

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        """All tensors that describe the posteriors, by name, see `Distribution.summary`."""
        found = [q.summary(self._rng(q, 0, "summary", start)) for start, q in self.parts]
        return {name: torch.cat([tensors[name] for tensors in found]) for name in found[0]}

    def sample(self, seed: int = 0) -> Tensor:
        """A sample of every posterior, with shape `(B, *latent_shape)`, keyed by the image's index."""
        return torch.cat([q.sample(self._rng(q, seed, "encode", start), 1)[0] for start, q in self.parts])

    @staticmethod
    def _rng(q: Distribution, seed: int, stream: str, start: int) -> BlockRng:
        return BlockRng(seed, stream, start, device=q.mean.device)


@torch.no_grad()
def latents(model: SingleLatent, images: Fetched, *, stream: str, batch_size: int) -> Latents:
    """Encodes images.

    Args:
        model: the model.
        images: B images.
        stream: the stream of binarisation and dequantisation.
        batch_size: images per pass; only affects rounding.
    """
    parts = list[tuple[int, Distribution]]()
    for start, batch in evaluation_batches(images, batch_size, model.device, stream):
        parts.append((start, posterior(model, batch)))
    return Latents(parts)


def posterior(model: SingleLatent, batch: Batch) -> Distribution:
    """q(z | x) of the images that the encoder sees."""
    return model.encode(batch.x if batch.encoder_input is None else batch.encoder_input, batch.y)
