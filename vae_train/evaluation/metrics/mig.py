"""Mutual information gap."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from vae_train.evaluation.factors import (
    DisentanglementMetric,
    Floats,
    Integers,
    information,
    mutual_information,
    ranks,
    validated,
)
from vae_train.evaluation.metrics.base import MetricInfo


class MIG(DisentanglementMetric):
    """Mutual information gap.

    Source: Chen et al., "Isolating Sources of Disentanglement in VAEs" (arXiv:1802.04942), section 4.
    """

    outputs = (MetricInfo("mig", "MIG", decimals=3),)
    order = 40

    @override
    def scores(self, latents: Floats, factors: Integers, seed: int) -> tuple[float, ...]:
        return (mig(latents, factors),)


def mig(latents: Floats, factors: Integers) -> float:
    """Averages over factors the gap between the two largest mutual informations, divided by the factor's entropy.

    Mutual information is that of the latents' histograms, so a factor with more than 20 values cannot reach 1, and few
    images bias it upwards.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
    """
    latents, factors = validated(latents, factors)
    ranked = np.sort(mutual_information(latents, factors), axis=0)  # (D, F)
    entropies = np.array([information(column, column) for column in ranks(factors).T])  # (F,)
    return float(((ranked[-1] - ranked[-2]) / entropies).mean())
