"""Separated attribute predictability."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from vae_train.evaluation.factors import DisentanglementMetric, Floats, Integers, train_test_split, validated
from vae_train.evaluation.metrics.base import MetricInfo

SVM_C = 0.01


class SAP(DisentanglementMetric):
    """Separated attribute predictability, for discrete factors.

    Source: Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations"
    (arXiv:1711.00848), section 3.
    """

    outputs = (MetricInfo("sap", "SAP", decimals=3),)
    order = 41
    splits_images = True

    @override
    def scores(self, latents: Floats, factors: Integers, seed: int) -> tuple[float, ...]:
        return (sap(latents, factors, seed),)


def sap(latents: Floats, factors: Integers, seed: int) -> float:
    """Averages over factors the gap between the accuracies of the two best latent dimensions.

    A linear SVM (one against the rest, squared hinge, C = 0.01, balanced classes) predicts each factor from each latent
    dimension. As the second one guesses, a factor with K equally frequent values adds at most about 1 - 1 / K. It adds
    far less for K > 4: one straight line per value cannot single values out along one dimension. C multiplies a sum
    over images, and latents are not standardised: scores of latents on other scales, or with fewer than some thousand
    images, do not compare.

    Deviation: two thirds of the images train and the rest tests (10,000 and 5,000 at most), instead of two samples.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
        seed: decides the split.
    """
    latents, factors = validated(latents, factors)
    train, test = train_test_split(len(latents), seed)
    accuracy = np.array(
        [
            [svm_accuracy(column[train], values[train], column[test], values[test]) for values in factors.T]
            for column in latents.T
        ]
    )  # (D, F)
    ranked = np.sort(accuracy, axis=0)
    return float((ranked[-1] - ranked[-2]).mean())


def svm_accuracy(train_x: Floats, train_y: Integers, test_x: Floats, test_y: Integers) -> float:
    """Returns the accuracy on test values `(M,)` of a linear SVM trained on values `(N,)`."""
    from sklearn.svm import LinearSVC

    if np.ptp(train_y) == 0:  # a rare value may be in no training image; an SVM needs two
        return float((test_y == train_y[0]).mean())
    # The primal problem has the same solution without random numbers.
    svm = LinearSVC(C=SVM_C, class_weight="balanced", dual=False).fit(train_x[:, None], train_y)
    return float(svm.score(test_x[:, None], test_y))
