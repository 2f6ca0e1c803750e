"""Latents and factors of variation of the same images, for the disentanglement metrics.

The protocols are those of Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of
Disentangled Representations" (arXiv:1811.12359), as disentanglement_lib implements them: 20 bins, 10,000 points to
train on and 5,000 to test on, groups of 64. Instead of generating new images, the metrics here sample the available
images with replacement: the shared factor of a group is fixed, and the others follow the data, which matters for
dependent factors.

All metrics are in [0, 1], higher is better, and all need at least two latent dimensions and two factors. Except for
ties and values on the edge of a bin, none depends on the order and signs of latent dimensions. MIG, modularity and DCI
do not depend on their scales either.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vae_train.evaluation.encodings import encodings, single_latent
from vae_train.evaluation.metrics.base import Estimate, Metric, Results
from vae_train.evaluation.subject import Subject, shared

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

NUM_TRAIN, NUM_TEST = 10_000, 5_000
"""Maximal number of training and test points of a classifier."""


@shared
def factor_data(subject: Subject) -> tuple[Floats, Integers]:
    """Encodes the split: posterior means `(N, D)`, and values `(N, F)` of the measurable factors."""
    e = encodings(subject)
    assert e.y is not None
    factors = e.y.cpu().numpy()
    return e.mean.cpu().numpy(), factors[:, measurable(factors)]


def varying_factors(subject: Subject) -> str | None:
    """Requires at least two latent dimensions and two factors that vary."""
    if reason := single_latent(subject):
        return reason
    if len(subject.data.facts.factors) < 2 or encodings(subject).y is None:
        return "the data has no factors of variation"
    return obstacle(*factor_data(subject))


class DisentanglementMetric(Metric):
    """A metric of latents and factors. Subclasses define `outputs` and `score`."""

    requires = (varying_factors,)
    splits_images = False
    """Whether it only uses the images of `train_test_split`."""
    conditions: str | None = None
    """What the score depends on, for the report."""
    score: Callable[[Floats, Integers, int], float | tuple[float, ...]]
    """Computes a value for every output from posterior means `(N, D)`, factors `(N, F)` and a seed."""

    @override
    def __call__(self, subject: Subject) -> Results:
        latents, factors = factor_data(subject)
        n = len(latents)
        if self.splits_images:
            n = sum(map(len, train_test_split(n, subject.seed)))
        values = np.atleast_1d(self.score(latents, factors, subject.seed)).tolist()
        about = {"conditions": self.conditions} if self.conditions else {}
        return {info.name: Estimate(value, None, n, about) for info, value in zip(self.outputs, values, strict=True)}


def obstacle(latents: Floats, factors: Integers) -> str | None:
    """Returns why disentanglement is not defined for latents `(N, D)` and factors `(N, F)`, or None."""
    if factors.shape[1] < 2:
        return f"needs two factors with more than one value; these images have {factors.shape[1]}"
    if latents.shape[1] < 2:
        return "needs two latent dimensions; the model has one"
    return None if np.isfinite(latents).all() else "some posterior means are not finite"


def validated(latents: Floats, factors: Integers) -> tuple[Floats, Integers]:
    """Returns the latents in float64, and the factors.

    Raises:
        ValueError: disentanglement is not defined for them.
    """
    if latents.ndim != 2 or factors.ndim != 2 or len(latents) != len(factors):
        raise ValueError(f"expected latents (N, D) and factors (N, F), got {latents.shape} and {factors.shape}")
    if not np.issubdtype(factors.dtype, np.integer):
        raise ValueError(f"factors must be integers, not {factors.dtype}")
    if reason := obstacle(latents, factors):
        raise ValueError(reason)
    if len(unfit := np.flatnonzero(~measurable(factors))):
        raise ValueError(f"factors {unfit.tolist()} have a single value, or no value that repeats")
    return latents.astype(np.float64), factors


def train_test_split(count: int, seed: int) -> tuple[Integers, Integers]:
    """Returns indices of training and test images: two thirds and one third, at most 10,000 and 5,000."""
    order = np.random.default_rng(seed).permutation(count)
    num_train = min(NUM_TRAIN, count * 2 // 3)
    return order[:num_train], order[num_train:][:NUM_TEST]


def measurable(factors: Integers) -> NDArray[np.bool_]:
    """Returns `(F,)`: which factors have more than one value, and a value that repeats."""
    distinct = np.array([len(np.unique(values)) for values in factors.T], np.int64)
    return (distinct > 1) & (distinct < len(factors))
