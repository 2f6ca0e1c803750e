"""Reconstructions and samples of a model beside real images, in [0, 1]."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.features import Features, LabelFeatures, RandomFeatures
from vae_train.evaluation.inception import InceptionFeatures
from vae_train.evaluation.metrics.base import Estimate, Metric, Results
from vae_train.evaluation.subject import Subject, Subset, shared
from vae_train.rng import BlockRng, Rng
from vae_train.util.errors import RunError

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
        real, sampled, features = feature_sets(subject, self.inception)
        about: dict[str, Any] = {"conditions": f"{len(sampled):,} samples, {features.name}"}
        if features.is_fid and (title := self.fid_title):
            about["title"] = title
        values = self.compare(real, sampled, subject.seed)
        return {name: Estimate(value, se, len(real), about) for name, (value, se) in values.items()}

    @abstractmethod
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        """Compares features `(N, d)` of real images and of samples: a value and its standard error by output."""


def validated(real: Tensor, sampled: Tensor, minimum: int) -> tuple[Tensor, Tensor]:
    """Returns the features in float64.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        minimum: how many are needed of either.

    Raises:
        ValueError: they cannot be compared, or are too few.
        RunError: some are not finite, as those of a model that has diverged.
    """
    if real.ndim != 2 or sampled.ndim != 2 or real.shape[1] != sampled.shape[1]:
        raise ValueError(f"features must be (N, d) and (M, d), not {tuple(real.shape)} and {tuple(sampled.shape)}")
    if min(len(real), len(sampled)) < minimum:
        raise ValueError(f"at least {minimum} features of either kind are needed, not {len(real)} and {len(sampled)}")
    for name, features in (("real images", real), ("samples", sampled)):
        if not features.isfinite().all():
            raise RunError(f"the features of the {name} are not finite")
    return real.double(), sampled.double()
