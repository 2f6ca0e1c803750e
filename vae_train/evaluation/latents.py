"""The latents of images: what describes their posteriors, and samples of z."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from vae_train.batch import Batch, Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import Normal
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.model.trace import Latent
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


class LatentLayers(list[Latents]):
    """The posteriors of all layers of a model with several, the topmost first.

    A layer's posterior depends on the layers above. `mean` and `std` of a layer belong to the means above, and `sample`
    of a single layer samples it given these. `LatentLayers.sample` samples all layers together.

    Args:
        model: the model.
        images: B images.
        stream: the stream of binarisation and dequantisation.
        batch_size: images per pass; only affects rounding.
    """

    @torch.no_grad()
    def __init__(self, model: LatentVariableModel, images: Fetched, *, stream: str, batch_size: int) -> None:
        self._model, self._images, self._options = model, images, (batch_size, model.device, stream)
        parts = list[list[tuple[int, Distribution]]]([] for _ in model.latent_shapes)
        for start, batch in evaluation_batches(images, *self._options):
            for part, q in zip(parts, posteriors(model, batch), strict=True):
                part.append((start, q))
        super().__init__(map(Latents, parts))

    @property
    def mean(self) -> list[Tensor]:
        """The mean of every layer given the means above, each with shape `(B, *shape)`."""
        return [layer.mean for layer in self]

    @property
    def std(self) -> list[Tensor]:
        """The standard deviations of every layer given the means above, each with shape `(B, *shape)`."""
        return [layer.std for layer in self]

    @torch.no_grad()
    def sample(self, seed: int = 0) -> list[Tensor]:
        """A sample of all layers together, each with shape `(B, *shape)`, keyed by the image's index."""
        parts = []
        for start, batch in evaluation_batches(self._images, *self._options):
            rng = BlockRng(seed, "encode", start, device=self._model.device)
            parts.append([latent.z[0] for latent in self._model.infer(encoder_input(batch), batch.y, rng)])
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]


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
    return model.encode(encoder_input(batch), batch.y)


def posteriors(model: LatentVariableModel, batch: Batch) -> list[Distribution]:
    """The posterior of every layer with batch (B,), the topmost first, each given the means above.

    Raises:
        TypeError: a layer below the topmost is not normal.
    """
    if isinstance(model, SingleLatent):
        return [posterior(model, batch)]
    unused = BlockRng(0, "mean", 0, device=batch.x.device)
    return [_given_means(latent) for latent in model.infer(encoder_input(batch), batch.y, unused, temperature=0.0)]


def _given_means(latent: Latent) -> Distribution:
    """A layer's posterior with batch (B,), from the batch (1, B) of layers that have one above."""
    q = latent.q
    if len(q.batch_shape) == 1:
        return q
    if not isinstance(q, Normal):
        raise TypeError(f"layers of latents below the topmost have to be normal, not {type(q).__name__}")
    return Normal(q.loc[0], q.log_scale.expand_as(q.loc)[0], len(q.event_shape))


def encoder_input(batch: Batch) -> Tensor:
    """The images that the encoder sees."""
    return batch.x if batch.encoder_input is None else batch.encoder_input


def layer_names(name: str, count: int) -> list[str]:
    """The names of one kind of array for every layer: `name` itself, or "mean_1", "mean_2", …, the topmost first."""
    return [name] if count == 1 else [f"{name}_{number}" for number in range(1, count + 1)]
