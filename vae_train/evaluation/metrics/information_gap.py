"""Disentanglement by the mutual information of latent dimensions and factors: MIG and modularity."""

import numpy as np
from numpy.typing import NDArray

from vae_train.evaluation.factors import DisentanglementMetric, Floats, Integers, validated
from vae_train.evaluation.metrics.base import MetricInfo

HISTOGRAM_BINS = 20
"""Bins of a latent dimension's histogram."""


def mig(latents: Floats, factors: Integers, seed: int = 0) -> float:
    """Averages, over factors, the gap between the two largest mutual informations, divided by the factor's entropy.

    Mutual information is computed from histograms of the latents, so a factor with more than 20 values cannot reach 1,
    and few images bias it upwards.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
        seed: not used.
    """
    from sklearn.metrics import mutual_info_score

    latents, factors = validated(latents, factors)
    ranked = np.sort(mutual_information(latents, factors), axis=0)  # (D, F)
    entropies = np.array([mutual_info_score(values, values) for values in factors.T])  # (F,)
    return float(((ranked[-1] - ranked[-2]) / entropies).mean())


def modularity(latents: Floats, factors: Integers, seed: int = 0) -> float:
    """Averages 1 - sum_{f ≠ f*} m_f² / ((F - 1) m_{f*}²) over latent dimensions.

    m_f is the mutual information with factor f, and f* the factor with the largest. The value is 1 for a latent
    dimension that depends on one factor only, 0 for one that depends equally on all, and 0 for a constant one (as in
    disentanglement_lib). The size of m_{f*} does not matter, so the score of noise reflects the biases of the m_f,
    which differ with the factors' sizes.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
        seed: not used.
    """
    latents, factors = validated(latents, factors)
    squared = mutual_information(latents, factors) ** 2  # (D, F)
    largest = squared.max(1)  # (D,)
    others = squared.sum(1) - largest
    informed = largest > 0
    return float((1 - others[informed] / (largest[informed] * (factors.shape[1] - 1))).sum() / len(largest))


def mutual_information(latents: Floats, factors: Integers) -> NDArray[np.float64]:
    """Computes the mutual information in nats between every latent dimension and every factor.

    Args:
        latents: `(N, D)`, each dimension cut into 20 bins from its smallest to its largest value.
        factors: `(N, F)`.

    Returns:
        `(D, F)`, at least 0; exactly 0 for a constant latent dimension.
    """
    from sklearn.metrics import mutual_info_score

    return np.array([[mutual_info_score(_binned(z), values) for values in factors.T] for z in latents.T])


def _binned(values: Floats) -> Integers:
    """Returns the bin of each value `(N,)`, 0 to 19."""
    span = np.ptp(values)
    if span == 0:
        return np.zeros(len(values), np.int64)
    return np.minimum((values - values.min()) / span * HISTOGRAM_BINS, HISTOGRAM_BINS - 1).astype(np.int64)


class MIG(DisentanglementMetric):
    """Mutual information gap.

    Source: Chen et al., "Isolating Sources of Disentanglement in VAEs" (arXiv:1802.04942), section 4.
    """

    outputs = (MetricInfo("mig", "MIG", decimals=3, better="higher"),)
    order = 40
    score = staticmethod(mig)


class Modularity(DisentanglementMetric):
    """Modularity: whether every latent dimension depends on at most one factor.

    Source: Ridgeway & Mozer, "Learning Deep Disentangled Embeddings with the F-Statistic Loss" (arXiv:1802.05312),
    section 3.
    """

    outputs = (MetricInfo("modularity", "modularity", decimals=3, better="higher"),)
    order = 45
    score = staticmethod(modularity)
