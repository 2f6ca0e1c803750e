"""Latents and factors of variation of the same images, as the disentanglement metrics compare them.

The protocols are those of Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of
Disentangled Representations" (arXiv:1811.12359), as disentanglement_lib implements them: 20 bins, 10,000 points to
train on and 5,000 to test on, groups of 64. Where they generate new images, the metrics here sample from the images at
hand, with replacement: the shared factor of a group is fixed, and the others follow the data, which matters for
dependent factors.

All metrics lie in [0, 1], more is better, and all need at least two latent dimensions and two factors. Except for ties,
and values on a bin's edge, none depends on the order and the signs of latent dimensions; MIG, modularity and DCI do not
depend on their scales either.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vae_train.evaluation.encodings import encodings
from vae_train.evaluation.metrics.base import Estimate, Metric, Results
from vae_train.evaluation.requirements import single_latent
from vae_train.evaluation.subject import Subject, shared

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

HISTOGRAM_BINS = 20
"""Bins of a latent dimension's histogram."""

NUM_TRAIN, NUM_TEST = 10_000, 5_000
"""Points that a classifier is trained on and tested on."""

GROUP_SIZE = 64
"""Images, or pairs of them, that make one point of the FactorVAE and beta-VAE scores."""

MAX_GROUPS_PER_CHUNK = 1_000


class FactorData(NamedTuple):
    """Latents and factors of N images."""

    latents: Floats
    """(N, D) posterior means."""
    factors: Integers
    """(N, F) values of the factors that vary and repeat."""


@shared
def factor_data(subject: Subject) -> FactorData:
    """Encodes the split and selects the factors that can be measured."""
    e = encodings(subject)
    assert e.y is not None
    return measurable_factors(e.mean.cpu().numpy(), e.y.cpu().numpy())


def varying_factors(subject: Subject) -> str | None:
    """Requires two latent dimensions, and two factors of variation that vary."""
    if reason := single_latent(subject):
        return reason
    if len(subject.data.facts.factors) < 2 or encodings(subject).y is None:
        return "the data has no factors of variation"
    return obstacle(*factor_data(subject))


class DisentanglementMetric(Metric):
    """A metric of latents and factors: a subclass has its outputs and `scores`."""

    requires = (varying_factors,)
    splits_images = False
    """Whether it uses the images of `train_test_split` rather than all."""

    @override
    def __call__(self, subject: Subject) -> Results:
        data, n = factor_data(subject), len(factor_data(subject).latents)
        if self.splits_images:
            n = sum(map(len, train_test_split(n, subject.seed)))
        values = self.scores(data.latents, data.factors, subject.seed)
        return {info.name: Estimate(value, None, n) for info, value in zip(self.outputs, values, strict=True)}

    @abstractmethod
    def scores(self, latents: Floats, factors: Integers, seed: int) -> tuple[float, ...]:
        """Returns a value for every output, from posterior means `(N, D)` and values `(N, F)`."""


def measurable_factors(latents: Floats, factors: Integers) -> FactorData:
    """Drops factors `(N, F)` with a single value, and those whose values never repeat."""
    _check_shapes(latents, factors)
    return FactorData(latents, factors[:, _measurable(factors)])


def obstacle(latents: Floats, factors: Integers) -> str | None:
    """Returns why disentanglement is not defined for latents `(N, D)` and factors `(N, F)`, or None."""
    if factors.shape[1] < 2:
        return f"two factors with more than one value are needed; these images have {factors.shape[1]}"
    if latents.shape[1] < 2:
        return "two latent dimensions are needed; the model has one"
    return None if np.isfinite(latents).all() else "some posterior means are not finite"


def validated(latents: Floats, factors: Integers) -> FactorData:
    """Returns the latents in float64, and the factors.

    Raises:
        ValueError: disentanglement is not defined for them.
    """
    _check_shapes(latents, factors)
    reason = obstacle(latents, factors)
    if not reason and not _measurable(factors).all():
        reason = f"factors {np.flatnonzero(~_measurable(factors)).tolist()} have a single value, or none that repeats"
    if reason:
        raise ValueError(reason)
    return FactorData(latents.astype(np.float64), factors)


def mutual_information(latents: Floats, factors: Integers) -> NDArray[np.float64]:
    """Computes the mutual information in nats between every latent dimension and every factor.

    Args:
        latents: `(N, D)`, each dimension cut into 20 bins from its smallest to its largest value.
        factors: `(N, F)`.

    Returns:
        `(D, F)`, at least 0; exactly 0 for a constant latent dimension.
    """
    columns = ranks(factors).T
    return np.array([[information(_binned(values), column) for column in columns] for values in latents.T])


def information(a: Integers, b: Integers) -> float:
    """Computes the mutual information in nats of two columns `(N,)` of numbers from 0 on."""
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1)
    # Products of whole numbers, so that the logarithm is exactly 0 where a and b are independent.
    expected = joint.sum(1, keepdims=True) * joint.sum(0)
    occurs = joint > 0
    return max(0.0, float((joint[occurs] * np.log(joint[occurs] * len(a) / expected[occurs])).sum() / len(a)))


def ranks(factors: Integers) -> Integers:
    """Numbers each column's values `(N, F)` from 0 without gaps."""
    return np.stack([np.unique(values, return_inverse=True)[1] for values in factors.T], 1)


def train_test_split(count: int, seed: int) -> tuple[Integers, Integers]:
    """Returns numbers of training and test images: two thirds and one third, at most 10,000 and 5,000."""
    order = np.random.default_rng(seed).permutation(count)
    num_train = min(NUM_TRAIN, count * 2 // 3)
    return order[:num_train], order[num_train:][:NUM_TEST]


class FactorGroups:
    """Samples images that share the value of a factor.

    Args:
        factors: `(N, F)`; in each column at least one value occurs twice.
    """

    def __init__(self, factors: Integers) -> None:
        self.num_factors = factors.shape[1]
        self._order = np.argsort(factors, axis=0, kind="stable")  # (N, F)
        counted = [np.unique(values, return_inverse=True, return_counts=True)[1:] for values in factors.T]
        self._first = np.stack([(np.cumsum(counts) - counts)[rank] for rank, counts in counted], 1)  # (N, F)
        self._count = np.stack([counts[rank] for rank, counts in counted], 1)  # (N, F)

    def images(self, factor: Integers, rng: np.random.Generator) -> Integers:
        """Samples an image for each of the factors `(B,)`, among those whose value occurs more than once."""
        images = np.empty(len(factor), np.int64)
        for f in range(self.num_factors):
            rows = factor == f
            images[rows] = rng.choice(np.flatnonzero(self._count[:, f] > 1), rows.sum())
        return images

    def partners(self, image: Integers, factor: Integers, count: int, rng: np.random.Generator) -> Integers:
        """Samples `(B, count)` images that share the factor `(B,)` with the images `(B,)`, which are among them."""
        offset = rng.integers(0, self._count[image, factor][:, None], (len(image), count))
        return self._order[self._first[image, factor][:, None] + offset, factor[:, None]]

    def chunks(self, total: int, rng: np.random.Generator) -> Iterator[Integers]:
        """Samples `total` factors uniformly, in chunks `(B,)`."""
        for start in range(0, total, MAX_GROUPS_PER_CHUNK):
            yield rng.integers(0, self.num_factors, min(MAX_GROUPS_PER_CHUNK, total - start))


def _binned(values: Floats) -> Integers:
    """Returns the bin of each value `(N,)`, 0 to 19."""
    span = np.ptp(values)
    if span == 0:
        return np.zeros(len(values), np.int64)
    return np.minimum((values - values.min()) / span * HISTOGRAM_BINS, HISTOGRAM_BINS - 1).astype(np.int64)


def _measurable(factors: Integers) -> NDArray[np.bool_]:
    """Returns which factors `(F,)` have more than one value, and some value more than once."""
    distinct = np.array([len(np.unique(values)) for values in factors.T], np.int64)
    return (distinct > 1) & (distinct < len(factors))


def _check_shapes(latents: Floats, factors: Integers) -> None:
    if latents.ndim != 2 or factors.ndim != 2 or len(latents) != len(factors):
        raise ValueError(f"expected latents (N, D) and factors (N, F), got {latents.shape} and {factors.shape}")
    if not np.issubdtype(factors.dtype, np.integer):
        raise ValueError(f"factors must be integers, not {factors.dtype}")
