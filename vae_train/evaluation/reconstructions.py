"""Images beside their reconstructions, and samples, in [0, 1]."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.features import Features, LabelFeatures, RandomFeatures
from vae_train.evaluation.inception import InceptionFeatures
from vae_train.evaluation.metrics.base import Estimate, Metric, Requirement, Results
from vae_train.evaluation.requirements import image_data
from vae_train.evaluation.subject import Subject, Subset, shared
from vae_train.rng import BlockRng, Rng

MAX_COMPARED_IMAGES = 5_000
"""Images that are compared with their reconstructions, and samples that are compared with them."""


@shared
@torch.no_grad()
def reconstruction_pairs(subject: Subject) -> tuple[Tensor, Tensor]:
    """Reconstructs images of the split: originals, and means of p(x | z) for one z ~ q(z | x), `(N, C, H, W)` each."""
    real, rebuilt = list[Tensor](), list[Tensor]()
    images = Subset(subject.images, MAX_COMPARED_IMAGES)
    for start, batch in evaluation_batches(images, subject.batch_size, subject.device):
        mean = subject.model(batch, BlockRng(subject.seed, "evaluation", start, device=subject.device)).px.mean[0]
        real.append(subject.data.to_pixels(batch.x).clamp(0, 1).cpu())
        rebuilt.append(subject.data.to_pixels(mean).clamp(0, 1).cpu())
    return torch.cat(real), torch.cat(rebuilt)


@shared
@torch.no_grad()
def sampled_images(subject: Subject, count: int) -> Tensor:
    """Samples `count` images from the model: pixels for binary data, means of p(x | z) otherwise."""
    chunks = []
    for number, start in enumerate(range(0, count, subject.batch_size)):
        rng = Rng(subject.seed, "samples", number, device=subject.device)
        px = subject.model.sample(min(subject.batch_size, count - start), rng)
        x = px.sample(rng, 1)[0] if subject.data.facts.levels == 2 else px.mean
        chunks.append(subject.data.to_pixels(x).clamp(0, 1).cpu())
    return torch.cat(chunks)


class FeatureSets(NamedTuple):
    """Features of as many real images as samples."""

    real: Tensor
    """(N, d)."""
    sampled: Tensor
    """(N, d)."""
    features: Features


@shared
@torch.no_grad()
def feature_sets(subject: Subject, inception: str | None) -> FeatureSets:
    """Computes features of images of the split and of samples.

    Args:
        subject: the subject.
        inception: file with weights of Inception v3; None for features of a classifier of the data's labels, or random
            ones for data without labels.
    """
    real, _ = reconstruction_pairs(subject)
    features = _features(subject, inception)
    return FeatureSets(features(real), features(sampled_images(subject, len(real))), features)


def _features(subject: Subject, inception: str | None) -> Features:
    if inception is not None:
        return InceptionFeatures(inception, subject.device)
    if subject.data.facts.classes is None or len(subject.data.facts.factors) > 1:
        return RandomFeatures(tuple(subject.data.facts.data_shape), device=subject.device)
    return LabelFeatures(subject.data, device=subject.device)


class ReconstructionMetric(Metric):
    """A comparison of reconstructions with their originals: a subclass has its output and `compare`."""

    requires: ClassVar[tuple[Requirement, ...]] = (image_data,)

    @override
    def __call__(self, subject: Subject) -> Results:
        real, rebuilt = reconstruction_pairs(subject)
        return {self.outputs[0].name: Estimate.mean_of(self.compare(rebuilt, real))}

    @abstractmethod
    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        """Compares images `(N, C, H, W)` in [0, 1] one by one: `(N,)`."""


class SampleMetric(Metric):
    """A comparison of samples with real images by their features: a subclass has its outputs and `compare`.

    Args:
        inception: file with weights of Inception v3; None for features of this data's own labels.
        enabled: whether it is measured.
    """

    requires = (image_data,)
    fid_title: ClassVar[str | None] = None
    """What it is called with the features that FID is defined with."""

    def __init__(self, inception: str | None, enabled: bool) -> None:
        super().__init__(enabled)
        self.inception = inception

    @override
    def __call__(self, subject: Subject) -> Results:
        sets = feature_sets(subject, self.inception)
        about: dict[str, Any] = {"conditions": f"{len(sets.sampled):,} samples, {sets.features.name}"}
        if sets.features.is_fid and (title := self.fid_title):
            about["title"] = title
        values = self.compare(sets.real, sets.sampled, subject.seed)
        return {name: Estimate(value, se, len(sets.real), about) for name, (value, se) in values.items()}

    @abstractmethod
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        """Compares features `(N, d)` of real images and of samples: a value and its standard error by output."""
