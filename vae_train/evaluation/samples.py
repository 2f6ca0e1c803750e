"""Reconstructions and samples of a model and the matching real images, in [0, 1], as batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.features import Features, InceptionFeatures, LabelFeatures, RandomFeatures
from vae_train.evaluation.metrics.base import Requirement
from vae_train.evaluation.subject import Subject, Subset, shared
from vae_train.rng import BlockRng, Rng

MAX_COMPARED_IMAGES = 5_000
"""Maximal number of images that are compared with reconstructions and samples."""


@torch.no_grad()
def reconstruction_pairs(subject: Subject) -> Iterator[tuple[Tensor, Tensor]]:
    """Reconstructs images of the split: originals, and means of p(x | z) for one z ~ q(z | x), `(B, C, H, W)` each."""
    images, noise, device = Subset(subject.images, MAX_COMPARED_IMAGES), subject.noise("judge"), subject.model.device
    for start, batch in evaluation_batches(images, subject.batch_size, device, noise.data):
        rebuilt = subject.model(batch, noise.latents(start, device)).px.mean[0]
        yield subject.to_pixels(batch.x), subject.to_pixels(rebuilt)


@torch.no_grad()
def sampled_images(subject: Subject, count: int) -> Iterator[Tensor]:
    """Samples `count` images from the model: pixels for binary data, means of p(x | z) otherwise.

    They are generated in whole blocks with separate noise, independently of `batch_size`.
    """
    model, size = subject.model, BlockRng.BLOCK
    for number, start in enumerate(range(0, count, size)):
        rng = Rng(subject.seed, "samples judge", number, device=model.device)
        y = None if model.condition is None else model.condition.cycle(start + size, model.device)[start:]
        px = model.sample(size, rng, y=y)
        x = px.sample(rng, 1)[0] if subject.data.facts.levels == 2 else px.mean
        yield subject.to_pixels(x[: count - start])


@shared
@torch.no_grad()
def feature_sets(subject: Subject, inception: str | None) -> tuple[Tensor, Tensor, Features]:
    """Computes features `(N, d)` of images of the split and of as many samples; also returns the network.

    Args:
        subject: the subject.
        inception: file with weights of Inception v3; None for features of a classifier of the data's labels, or random
            ones for data without labels.
    """
    facts, device = subject.data.facts, subject.model.device
    if inception is not None:
        features: Features = InceptionFeatures(inception, device)
    elif facts.classes is None:
        features = RandomFeatures(facts.data_shape, device=device)
    else:
        features = LabelFeatures(subject.data, device=device)
    images, noise = Subset(subject.images, MAX_COMPARED_IMAGES), subject.noise("judge")
    batches = evaluation_batches(images, subject.batch_size, device, noise.data)
    real = torch.cat([features(subject.to_pixels(batch.x)) for _, batch in batches])
    return real, torch.cat([features(x) for x in sampled_images(subject, len(images))]), features


def min_images(count: int) -> Requirement:
    """Requires at least `count` images in the split."""

    def enough_images(subject: Subject) -> str | None:
        found = len(subject.images)
        return None if found >= count else f"needs at least {count} images; the split has {found}"

    return enough_images


def image_data(subject: Subject) -> str | None:
    """Requires whole images rather than signals or vectors."""
    if subject.data.facts.missing:
        return "images with missing values cannot be compared"
    return "the data does not consist of images" if min(subject.data.facts.data_shape[1:]) == 1 else None
