"""Posteriors of many images."""

from typing import NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Fetched, Split
from vae_train.data.stream import evaluation_batches
from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import Normal
from vae_train.evaluation.subject import Subject, Subset, shared
from vae_train.model.base import SingleLatent
from vae_train.rng import BlockRng

MAX_ENCODED_IMAGES = 10_000
"""Images of a split that are encoded for metrics of the latents."""

Moments = tuple[Tensor, Tensor]
"""Mean and logarithm of the standard deviation."""


class Encodings(NamedTuple):
    """Posteriors of N images, with the latent flattened to D dimensions."""

    mean: Tensor
    """(N, D) means of q(z | x)."""
    z: Tensor
    """(N, D) one sample of each."""
    q: Moments | None
    """(N, D) each, of a normal posterior."""
    p: Moments | None
    """(D,) each, of a normal prior that is the same for all images."""
    y: Tensor | None
    """(N, F) int64 labels or factors."""


@torch.no_grad()
def encode(model: SingleLatent, images: Fetched, *, seed: int = 0, batch_size: int = 512) -> Encodings:
    """Encodes images.

    Args:
        model: the model.
        images: N images.
        seed: decides z, as in `vae_train.evaluation.bounds`.
        batch_size: images at a time.
    """
    means, zs, ys = list[Tensor](), list[Tensor](), list[Tensor]()
    moments = list[Moments]()
    for start, batch in evaluation_batches(images, batch_size, model.device):
        q = model.encode(batch.x, batch.y)
        means.append(q.mean.flatten(1))
        zs.append(q.sample(BlockRng(seed, "evaluation", start, device=model.device), 1)[0].flatten(1))
        moments += [pair] if (pair := _moments(q)) else []
        if batch.y is not None:
            ys.append(batch.y)
    # A conditional model has a prior for every y.
    prior = None if model.condition is not None else getattr(model, "prior", None)
    p = None if prior is None else _moments(prior(model.encode))
    q_moments = (torch.cat([m for m, _ in moments]), torch.cat([s for _, s in moments])) if moments else None
    return Encodings(torch.cat(means), torch.cat(zs), q_moments, p, torch.cat(ys) if ys else None)


@shared
def encodings(subject: Subject, split: Split | None = None) -> Encodings:
    """Encodes at most `MAX_ENCODED_IMAGES` evenly spaced images of a split, by default the subject's."""
    images = subject.data.split(split or subject.split)
    assert images is not None
    assert isinstance(subject.model, SingleLatent)
    return encode(subject.model, Subset(images, MAX_ENCODED_IMAGES), **subject.options)


def single_latent(subject: Subject) -> str | None:
    """Requires a model with one latent, which `encodings` works with."""
    return None if isinstance(subject.model, SingleLatent) else "the model has no single latent vector"


def _moments(distribution: Distribution) -> Moments | None:
    """Returns mean and log standard deviation with the latent flattened; None if the distribution is not normal."""
    if type(distribution) is not Normal:
        return None
    batch = distribution.batch_shape
    shape = batch + distribution.event_shape
    mean, log_scale = (t.expand(shape).flatten(len(batch)) for t in (distribution.loc, distribution.log_scale))
    return mean, log_scale
