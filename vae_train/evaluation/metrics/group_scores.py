"""Disentanglement by groups of images that share the value of a factor: FactorVAE and beta-VAE scores."""

import numpy as np

from vae_train.evaluation.factor_groups import FactorGroups
from vae_train.evaluation.factors import NUM_TEST, NUM_TRAIN, DisentanglementMetric, Floats, Integers, validated
from vae_train.evaluation.metrics.base import MetricInfo

GROUP_SIZE = 64
"""Images, or pairs of images, per point of the FactorVAE and beta-VAE scores."""


MIN_VOTING_STD = 0.05
"""Standard deviation of the posterior mean below which a latent dimension does not vote."""

MAX_ITERATIONS = 1_000


def factor_vae_score(latents: Floats, factors: Integers, seed: int) -> float:
    """Computes how often the least varying latent dimension of a group identifies the factor that the group shares.

    A point is a group of 64 images that share the value of one random factor: the dimension whose variance in the
    group, divided by its variance over all images, is smallest votes for that factor. A dimension then represents the
    factor that it voted for most often in 10,000 groups; the score is how often this is right in 5,000 others. Chance
    is 1 / F. Dimensions with a standard deviation below 0.05 do not vote (as in disentanglement_lib; the text of
    Locatello et al., arXiv:1811.12359, says variance). Without a voting dimension the score is 0.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
        seed: seed of the groups.
    """
    latents, factors = validated(latents, factors)
    variance = latents.var(0, ddof=1)  # (D,)
    active = np.sqrt(variance) >= MIN_VOTING_STD
    if not active.any():
        return 0.0
    scaled, groups = latents[:, active] / np.sqrt(variance[active]), FactorGroups(factors, seed)
    train, test = (_votes(scaled, groups, num) for num in (NUM_TRAIN, NUM_TEST))  # (F, active dimensions)
    right = test[train.argmax(0), np.arange(test.shape[1])]
    return float(right.sum() / test.sum())


def _votes(scaled: Floats, groups: FactorGroups, total: int) -> Integers:
    """Counts how often each factor's groups varied least in each dimension, `(F, D)`; latents have variance 1."""
    votes = np.zeros((groups.num_factors, scaled.shape[1]), np.int64)
    for factor in groups.chunks(total):
        members = groups.partners(groups.images(factor), factor, GROUP_SIZE)  # (B, 64)
        np.add.at(votes, (factor, scaled[members].var(1, ddof=1).argmin(1)), 1)
    return votes


def beta_vae_score(latents: Floats, factors: Integers, seed: int) -> float:
    """Computes how well a linear classifier tells which factor pairs of images share.

    A point is the mean over 64 pairs of images of |difference of their latents|, where the two of each pair share the
    value of one factor. Logistic regression (scikit-learn's C = 1) is trained on 10,000 points to predict this factor;
    the score is its accuracy on 5,000 others. Chance is 1 / F. Latents are not standardised.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
        seed: seed of the pairs.
    """
    from sklearn.linear_model import LogisticRegression

    latents, factors = validated(latents, factors)
    groups = FactorGroups(factors, seed)
    points, labels = _differences(latents, groups, NUM_TRAIN)
    model = LogisticRegression(max_iter=MAX_ITERATIONS).fit(points, labels)
    return float(model.score(*_differences(latents, groups, NUM_TEST)))


def _differences(latents: Floats, groups: FactorGroups, total: int) -> tuple[Floats, Integers]:
    """Returns points `(total, D)` and the shared factor of each, `(total,)`."""
    points, labels = [], []
    for factor in groups.chunks(total):
        repeated = factor.repeat(GROUP_SIZE)
        first = groups.images(repeated)
        second = groups.partners(first, repeated, 1)[:, 0]
        points.append(np.abs(latents[first] - latents[second]).reshape(len(factor), GROUP_SIZE, -1).mean(1))
        labels.append(factor)
    return np.concatenate(points), np.concatenate(labels)


class FactorVAEScore(DisentanglementMetric):
    """FactorVAE score.

    Source: Kim & Mnih, "Disentangling by Factorising" (arXiv:1802.05983), section 4.
    """

    outputs = (MetricInfo("factor_vae_score", "FactorVAE score", decimals=3, better="higher"),)
    order = 43
    score = staticmethod(factor_vae_score)


class BetaVAEScore(DisentanglementMetric):
    """beta-VAE score.

    Source: Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework"
    (ICLR 2017, openreview.net/forum?id=Sy2fzU9gl), section 3.
    """

    outputs = (MetricInfo("beta_vae_score", "beta-VAE score", decimals=3, better="higher"),)
    order = 44
    score = staticmethod(beta_vae_score)
