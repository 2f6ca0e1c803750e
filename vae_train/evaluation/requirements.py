"""What metrics require of a subject: each function returns the reason why it does not qualify, or None."""

from __future__ import annotations

import torch

from vae_train.evaluation.encodings import encodings
from vae_train.evaluation.metrics.base import Requirement
from vae_train.evaluation.subject import Subject, shared
from vae_train.model.base import SingleLatent
from vae_train.rng import BlockRng


@shared
@torch.no_grad()
def has_density(subject: Subject) -> str | None:
    """Requires a posterior with a density, without which there is no evidence bound."""
    index = torch.zeros(1, dtype=torch.int64, device=subject.device)
    trace = subject.model(subject.images.fetch(index), BlockRng(subject.seed, "evaluation", 0, device=subject.device))
    return None if trace.bounded else "the posterior is a point mass and has no evidence bound"


def single_latent(subject: Subject) -> str | None:
    """Requires a model with one latent, which `encodings` works with."""
    return None if isinstance(subject.model, SingleLatent) else "the model has no single latent vector"


def class_labels(subject: Subject) -> str | None:
    """Requires training images with one label each."""
    if encodings(subject).y is None or subject.data.split("train") is None:
        return "the data has no labels"
    if len(subject.data.facts.factors) > 1:
        return "the data has several factors of variation, which the disentanglement metrics are for"
    return None


def normal_latents(subject: Subject) -> str | None:
    """Requires a normal posterior and a normal prior."""
    e = encodings(subject)
    return "the posterior or the prior is not normal" if e.q is None or e.p is None else None


def image_data(subject: Subject) -> str | None:
    """Requires images rather than signals or vectors."""
    return "the data are not images" if min(subject.data.facts.data_shape[1:]) == 1 else None


def min_side(pixels: int) -> Requirement:
    """Requires images with at least so many pixels on both sides."""

    def large_images(subject: Subject) -> str | None:
        side = min(subject.data.facts.data_shape[1:])
        return None if side >= pixels else f"images of at least {pixels} pixels a side are needed; these have {side}"

    return large_images
