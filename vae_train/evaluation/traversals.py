"""Latent traversals: images for different values of one latent at a time, and the information in every latent."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.distributions.kl import kl_elementwise
from vae_train.evaluation.encodings import Encodings
from vae_train.evaluation.subject import Noise
from vae_train.model.base import SingleLatent

TRAVERSAL_STEPS, TRAVERSAL_LIMIT = 9, 2.5
"""Number of images in a traversal, and its range in standard deviations of the aggregate posterior."""


class LatentRange(NamedTuple):
    """The aggregate posterior of L latents: the elements of z, or its channels, whose value is their mean."""

    mean: Tensor
    """(L,) mean over images."""
    std: Tensor
    """(L,) standard deviation over images."""

    @classmethod
    def of(cls, encodings: Encodings, count: int) -> "LatentRange":
        """Measures the aggregate posterior.

        Args:
            encodings: encodings of some images.
            count: L, the number of elements of z, or of its channels.
        """
        values = encodings.z.view(len(encodings.z), count, -1).mean(2)
        return cls(values.mean(0), values.std(0, unbiased=False))


@torch.no_grad()
def traverse(
    model: SingleLatent,
    z: Tensor,
    latents: Sequence[int],
    reach: LatentRange,
    steps: int = TRAVERSAL_STEPS,
    y: Tensor | None = None,
) -> list[Tensor]:
    """Decodes z with one latent at a time set to `steps` values, equally spaced in its aggregate posterior.

    The mean of a channel is set by adding the same number everywhere.

    Args:
        model: the model.
        z: `latent_shape`, where the traversals cross.
        latents: indices of the latents.
        reach: the aggregate posterior.
        steps: number of values.
        y: `(1, F)` the condition of a conditional model.

    Returns:
        For every latent `(steps, C, H, W)` means of p(x | z), from low to high values.
    """
    units = torch.linspace(-TRAVERSAL_LIMIT, TRAVERSAL_LIMIT, steps, device=z.device)
    condition, start = None if y is None else y.expand(steps, -1), z.reshape(len(reach.mean), -1)
    rows = []
    for latent in latents:
        moved = start.repeat(steps, 1, 1)
        moved[:, latent] += (reach.mean[latent] + units * reach.std[latent] - start[latent].mean())[:, None]
        rows.append(model.decode(moved.view(steps, *z.shape), condition).mean)
    return rows


@torch.no_grad()
def mean_rates(model: SingleLatent, images: Fetched, *, noise: Noise, batch_size: int) -> Tensor | None:
    """Computes the mean KL(q(z_l | x) || p(z_l)) of every latent over images, summed over the elements of a channel.

    Args:
        model: the model.
        images: some images.
        noise: noise of z and of the binarisation.
        batch_size: images per pass.

    Returns:
        `(L,)` in nats, for conditional models with the prior p(z | y); None unless q and p are normal and factorised.
    """
    total, shape = torch.zeros(()), model.latent_shape
    for start, batch in evaluation_batches(images, batch_size, model.device, noise.data):
        (latent,) = model(batch, noise.latents(start, model.device)).latents
        kl = kl_elementwise(latent.q, latent.p)
        if kl is None:
            return None
        total = total + kl.view(-1, *shape).sum(0).double().cpu()
    return total.flatten(1).sum(1) / len(images) if total.dim() > 1 else total / len(images)
