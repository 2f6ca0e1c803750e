"""The evidence lower bound and its terms, image by image."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_train.batch import Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.metrics.base import Estimate
from vae_train.evaluation.subject import Subject, Subset, shared
from vae_train.model.base import LatentVariableModel
from vae_train.rng import BlockRng


@torch.no_grad()
def image_bounds(
    model: LatentVariableModel,
    images: Fetched,
    *,
    seed: int = 0,
    num_samples: int = 1,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor | None]:
    """Computes the ELBO, its terms and bits per dimension of every image, at beta = 1.

    Args:
        model: the model, on `device`.
        images: N images.
        seed: decides z. The noise of an image is a function of (seed, its number): `batch_size` changes rounding only.
        num_samples: samples of z per image that the distortion is averaged over.
        batch_size: images at a time.
        device: where the noise is made.

    Returns:
        "elbo", "rate", "distortion" (nats) and "bits_per_dim", each `(N,)`; None where the posterior is a point mass
        (all but the distortion) or the likelihood is no mass of discrete data (bits per dimension).
    """
    columns: dict[str, list[Tensor]] = {"elbo": [], "rate": [], "distortion": [], "bits_per_dim": []}
    for start, batch in evaluation_batches(images, batch_size, device):
        trace = model(batch, BlockRng(seed, "evaluation", start, device=device), num_samples)
        values: dict[str, Tensor | None] = {"distortion": trace.distortion()}
        if trace.bounded:
            values |= {"elbo": trace.elbo(), "rate": trace.rate(), "bits_per_dim": trace.bits_per_dim()}
        for name, value in values.items():
            if value is not None:
                columns[name].append(value)
    return {name: torch.cat(parts) if parts else None for name, parts in columns.items()}


def estimate_bounds(bounds: dict[str, Tensor | None]) -> dict[str, Estimate | None]:
    """Averages what `image_bounds` returns over the images."""
    return {name: None if values is None else Estimate.mean_of(values) for name, values in bounds.items()}


@shared
def subject_bounds(subject: Subject, num_samples: int) -> dict[str, Tensor | None]:
    """Computes `image_bounds` of the split."""
    return image_bounds(subject.model, subject.images, num_samples=num_samples, **subject.options)


@shared
def train_bounds(subject: Subject, num_samples: int) -> dict[str, Tensor | None]:
    """Computes `image_bounds` of as many training images as the split has."""
    train = subject.data.split("train")
    assert train is not None
    subset = Subset(train, len(subject.images))
    return image_bounds(subject.model, subset, num_samples=num_samples, **subject.options)
