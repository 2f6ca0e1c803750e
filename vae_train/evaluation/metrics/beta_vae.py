"""beta-VAE score."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from vae_train.evaluation.factors import (
    GROUP_SIZE,
    NUM_TEST,
    NUM_TRAIN,
    DisentanglementMetric,
    FactorGroups,
    Floats,
    Integers,
    validated,
)
from vae_train.evaluation.metrics.base import MetricInfo

MAX_ITERATIONS = 1_000


class BetaVAEScore(DisentanglementMetric):
    """beta-VAE score.

    Source: Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework"
    (ICLR 2017, openreview.net/forum?id=Sy2fzU9gl), section 3.
    """

    outputs = (MetricInfo("beta_vae_score", "beta-VAE score", decimals=3),)
    order = 44

    @override
    def scores(self, latents: Floats, factors: Integers, seed: int) -> tuple[float, ...]:
        return (beta_vae_score(latents, factors, seed),)


def beta_vae_score(latents: Floats, factors: Integers, seed: int) -> float:
    """Measures how well a linear classifier tells which factor pairs of images share.

    A point is the mean over 64 pairs of images of |difference of their latents|, where the two of each pair share the
    value of one factor. Logistic regression (scikit-learn's C = 1) learns from 10,000 points which factor that is; the
    score is its accuracy on 5,000 others. Chance is 1 / F. Latents are not standardised.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
        seed: decides the pairs.
    """
    from sklearn.linear_model import LogisticRegression

    latents, factors = validated(latents, factors)
    groups, rng = FactorGroups(factors), np.random.default_rng(seed)
    points, labels = _differences(latents, groups, NUM_TRAIN, rng)
    model = LogisticRegression(max_iter=MAX_ITERATIONS).fit(points, labels)
    return float(model.score(*_differences(latents, groups, NUM_TEST, rng)))


def _differences(
    latents: Floats, groups: FactorGroups, total: int, rng: np.random.Generator
) -> tuple[Floats, Integers]:
    """Returns points `(total, D)` and the factor that is shared in each, `(total,)`."""
    points, labels = [], []
    for factor in groups.chunks(total, rng):
        repeated = factor.repeat(GROUP_SIZE)
        first = groups.images(repeated, rng)
        second = groups.partners(first, repeated, 1, rng)[:, 0]
        points.append(np.abs(latents[first] - latents[second]).reshape(len(factor), GROUP_SIZE, -1).mean(1))
        labels.append(factor)
    return np.concatenate(points), np.concatenate(labels)
