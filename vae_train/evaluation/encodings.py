"""Encodes images: means, samples and posteriors for metrics of the latents."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Fetched, Split
from vae_train.data.stream import evaluation_batches
from vae_train.distributions.base import Distribution
from vae_train.distributions.codes import QuantizedPoint
from vae_train.distributions.normal import Normal
from vae_train.evaluation.subject import Noise, Purpose, Subject, Subset, shared
from vae_train.model.base import SingleLatent

MAX_ENCODED_IMAGES = 10_000
"""Maximal number of images of a split that are encoded for metrics of the latents."""


class Encodings(NamedTuple):
    """Posteriors of N images, with the latent flattened to D dimensions."""

    mean: Tensor
    """(N, D) means of q(z | x)."""
    z: Tensor
    """(N, D) one sample of each posterior."""
    q: Normal | None
    """(N, D) posteriors, if they are normal."""
    p: Normal | None
    """(D,) the prior, if it is normal and the same for all images."""
    prior_std: Tensor
    """(D,) standard deviation of the prior without a condition; 1 without a closed form."""
    y: Tensor | None
    """(N, F) int64 labels or factors."""


@torch.no_grad()
def encode(model: SingleLatent, images: Fetched, *, noise: Noise, batch_size: int = 512) -> Encodings:
    """Encodes images.

    Args:
        model: the model.
        images: N images.
        noise: noise of z and of the binarisation, as in `vae_train.evaluation.bounds`.
        batch_size: images per pass.
    """
    means, zs, ys = list[Tensor](), list[Tensor](), list[Tensor]()
    normals = list[Normal]()
    for start, batch in evaluation_batches(images, batch_size, model.device, noise.data):
        posterior = model.encode(batch.x, batch.y)
        means.append(posterior.mean.flatten(1))
        zs.append(posterior.sample(noise.latents(start, model.device), 1)[0].flatten(1))
        normals += [normal] if (normal := _flat_normal(posterior)) else []
        if batch.y is not None:
            ys.append(batch.y)
    prior = getattr(model, "prior", None)
    p = None if prior is None else prior(model.encode)
    # A conditional model has a different prior for every y.
    normal_prior = None if p is None or model.condition is not None else _flat_normal(p)
    q = Normal(torch.cat([n.loc for n in normals]), torch.cat([n.log_scale for n in normals])) if normals else None
    y = torch.cat(ys) if ys else None
    return Encodings(torch.cat(means), torch.cat(zs), q, normal_prior, _std(p, means[0][0]), y)


@torch.no_grad()
def encode_codes(model: Any, images: Fetched, *, noise: Noise, batch_size: int = 512) -> Tensor:
    """Encodes images to codes: int32 `(N, *code_shape)` on the CPU.

    Args:
        model: a model with a codebook.
        images: N images.
        noise: see `encode`; a posterior that is no point has one sample per image.
        batch_size: images per pass.
    """
    codes = []
    for start, batch in evaluation_batches(images, batch_size, model.device, noise.data):
        q = model.encode(batch.x, batch.y)
        if isinstance(q, QuantizedPoint):
            indices = q.codes
        else:
            indices = model.codebook.indices(q.sample(noise.latents(start, model.device), 1)[0])
        codes.append(indices.int().cpu())
    return torch.cat(codes)


@shared
def encodings(subject: Subject, split: Split | None = None, purpose: Purpose = "judge") -> Encodings:
    """Encodes at most `MAX_ENCODED_IMAGES` evenly spaced images of a split, by default the subject's."""
    assert isinstance(subject.model, SingleLatent)
    images, noise = Subset(subject.images_of(split), MAX_ENCODED_IMAGES), subject.noise(purpose, split)
    return encode(subject.model, images, noise=noise, batch_size=subject.batch_size)


def single_latent(subject: Subject) -> str | None:
    """Requires a model with a single latent, as `encodings` does."""
    if isinstance(subject.model, SingleLatent):
        return None
    return f"needs a single latent; this model has {len(subject.model.latent_shapes)} layers of latents"


def has_real_latents(model: SingleLatent) -> bool:
    """Whether z is in R^D. Means and steps along an axis make no sense on a sphere or for categories."""
    return getattr(getattr(model, "posterior", None), "support", "real") == "real"


def _std(p: Distribution | None, like: Tensor) -> Tensor:
    """The standard deviation of a distribution with batch shape (); 1 without a closed form."""
    try:
        return torch.ones_like(like) if p is None else p.variance.sqrt().expand(p.event_shape).flatten()
    except NotImplementedError:
        return torch.ones_like(like)


def _flat_normal(distribution: Distribution) -> Normal | None:
    """Returns a distribution with the latent flattened; None if it is not normal."""
    if type(distribution) is not Normal:
        return None
    batch = distribution.batch_shape
    shape = batch + distribution.event_shape
    mean, log_scale = (t.expand(shape).flatten(len(batch)) for t in (distribution.loc, distribution.log_scale))
    return Normal(mean, log_scale)
