"""Reconstructions and samples of a model beside real images, in [0, 1]."""

import torch
from torch import Tensor

from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.features import Features, InceptionFeatures, LabelFeatures, RandomFeatures
from vae_train.evaluation.subject import Subject, Subset, shared
from vae_train.rng import BlockRng, Rng

MAX_COMPARED_IMAGES = 5_000
"""Images that are compared with their reconstructions, and samples that are compared with them."""


@shared
@torch.no_grad()
def reconstruction_pairs(subject: Subject) -> tuple[Tensor, Tensor]:
    """Reconstructs images of the split: originals, and means of p(x | z) for one z ~ q(z | x), `(N, C, H, W)` each."""
    real, rebuilt, device = list[Tensor](), list[Tensor](), subject.model.device
    for start, batch in evaluation_batches(Subset(subject.images, MAX_COMPARED_IMAGES), subject.batch_size, device):
        mean = subject.model(batch, BlockRng(subject.seed, "evaluation", start, device=device)).px.mean[0]
        real.append(subject.to_pixels(batch.x))
        rebuilt.append(subject.to_pixels(mean))
    return torch.cat(real), torch.cat(rebuilt)


@shared
@torch.no_grad()
def sampled_images(subject: Subject, count: int) -> Tensor:
    """Samples `count` images from the model: pixels for binary data, means of p(x | z) otherwise."""
    chunks = []
    for number, start in enumerate(range(0, count, subject.batch_size)):
        rng = Rng(subject.seed, "samples", number, device=subject.model.device)
        px = subject.model.sample(min(subject.batch_size, count - start), rng)
        x = px.sample(rng, 1)[0] if subject.data.facts.levels == 2 else px.mean
        chunks.append(subject.to_pixels(x))
    return torch.cat(chunks)


@shared
@torch.no_grad()
def feature_sets(subject: Subject, inception: str | None) -> tuple[Tensor, Tensor, Features]:
    """Computes features `(N, d)` of images of the split and of as many samples; returns the network, too.

    Args:
        subject: the subject.
        inception: file with weights of Inception v3; None for features of a classifier of the data's labels, or random
            ones for data without labels.
    """
    real, _ = reconstruction_pairs(subject)
    facts, device = subject.data.facts, subject.model.device
    if inception is not None:
        features: Features = InceptionFeatures(inception, device)
    elif facts.classes is None:
        features = RandomFeatures(facts.data_shape, device=device)
    else:
        features = LabelFeatures(subject.data, device=device)
    return features(real), features(sampled_images(subject, len(real))), features


def image_data(subject: Subject) -> str | None:
    """Requires images rather than signals or vectors."""
    return "the data are not images" if min(subject.data.facts.data_shape[1:]) == 1 else None
