"""Modularity."""

from __future__ import annotations

from typing_extensions import override

from vae_train.evaluation.factors import DisentanglementMetric, Floats, Integers, mutual_information, validated
from vae_train.evaluation.metrics.base import MetricInfo


class Modularity(DisentanglementMetric):
    """Modularity: whether every latent dimension depends on at most one factor.

    Source: Ridgeway & Mozer, "Learning Deep Disentangled Embeddings with the F-Statistic Loss" (arXiv:1802.05312),
    section 3.
    """

    outputs = (MetricInfo("modularity", "modularity", decimals=3),)
    order = 45

    @override
    def scores(self, latents: Floats, factors: Integers, seed: int) -> tuple[float, ...]:
        return (modularity(latents, factors),)


def modularity(latents: Floats, factors: Integers) -> float:
    """Averages 1 - sum_{f ≠ f*} m_f² / ((F - 1) m_{f*}²) over latent dimensions.

    m_f is the mutual information with factor f, and f* the factor with the largest. The value is 1 for a latent
    dimension that depends on one factor only, 0 for one that depends on all alike, and 0 for a constant one (as in
    disentanglement_lib). The size of m_{f*} does not matter: the score of noise is that of the biases of the m_f, which
    differ with the factors' sizes.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
    """
    latents, factors = validated(latents, factors)
    squared = mutual_information(latents, factors) ** 2  # (D, F)
    largest = squared.max(1)  # (D,)
    others = squared.sum(1) - largest
    informed = largest > 0
    return float((1 - others[informed] / (largest[informed] * (factors.shape[1] - 1))).sum() / len(largest))
