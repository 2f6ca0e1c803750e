"""Disentanglement by classifiers that predict factors from latent dimensions: SAP and DCI."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np

from vae_train.evaluation.factors import DisentanglementMetric, Floats, Integers, train_test_split, validated
from vae_train.evaluation.metrics.base import MetricInfo

Classifier = Literal["forest", "boosting"]
CLASSIFIERS: Mapping[Classifier, str] = {"forest": "by random forests", "boosting": "by gradient boosted trees"}

SVM_C = 0.01

NUM_TREES = 20
MIN_LEAF_FRACTION = 0.003
"""Least fraction of the training images per leaf."""


def sap(latents: Floats, factors: Integers, seed: int) -> float:
    """Averages over factors the gap between the accuracies of the two best latent dimensions.

    A linear SVM (one against the rest, squared hinge, C = 0.01, balanced classes) predicts each factor from each latent
    dimension. Since the second best one guesses at worst, a factor with K equally frequent values contributes at most
    about 1 - 1 / K. It contributes far less for K > 4, since linear classifiers cannot separate inner values along one
    dimension. C multiplies a sum over images, and latents are not standardised, so scores of latents on other scales,
    or with fewer than some thousand images, are not comparable.

    Deviation: two thirds of the images are for training and the rest for testing (at most 10,000 and 5,000).

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
        seed: seed of the split.
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

    if np.ptp(train_y) == 0:  # a rare value may not occur in training, and an SVM needs two
        return float((test_y == train_y[0]).mean())
    # The primal problem has the same solution and needs no random numbers.
    svm = LinearSVC(C=SVM_C, class_weight="balanced", dual=False).fit(train_x[:, None], train_y)
    return float(svm.score(test_x[:, None], test_y))


def dci(latents: Floats, factors: Integers, seed: int, classifier: Classifier = "forest") -> tuple[float, float, float]:
    """Measures how a classifier predicts each factor from all latent dimensions.

    R is the matrix of the dimensions' importances for the factors. Disentanglement of a dimension is 1 - H_F(its row of
    R), completeness of a factor 1 - H_D(its column), with entropies of normalised importances in base F and D; their
    means are weighted by the rows' and columns' shares of R.

    The classifier is a random forest, as in the paper. Deviations: every split may use every dimension, since otherwise
    splits give importance to wrong dimensions; leaves contain at least 0.3 % of the images, whereas the paper tunes the
    depth. "boosting" means the gradient boosted trees of disentanglement_lib, which take a minute for a factor with 40
    values (10,000 images). Informativeness is the accuracy, as there, instead of the paper's error.

    Args:
        latents: posterior means `(N, D)`.
        factors: values `(N, F)`.
        seed: seed of the split and the trees.
        classifier: see above.

    Returns:
        Disentanglement, 1 if every latent dimension matters for one factor only; completeness, 1 if every factor is
        predicted from one latent dimension only; informativeness, the accuracy on test images, the mean over factors.
    """
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

    latents, factors = validated(latents, factors)
    train, test = train_test_split(len(latents), seed)
    columns, accuracies = [], []
    options = {"max_features": None, "min_samples_leaf": MIN_LEAF_FRACTION, "random_state": seed}
    for values in factors.T:
        # One thread: the sum over trees in `predict` depends on their order.
        trees = RandomForestClassifier(NUM_TREES, n_jobs=1, **options)
        if classifier == "boosting" and np.ptp(values[train]):  # boosting needs two classes
            trees = GradientBoostingClassifier(random_state=seed)
        trees.fit(latents[train], values[train])
        columns.append(trees.feature_importances_)
        accuracies.append(float((trees.predict(latents[test]) == values[test]).mean()))
    importance = np.stack(columns, 1)  # (D, F)
    return (concentration(importance), concentration(importance.T), float(np.mean(accuracies)))


def concentration(importance: Floats) -> float:
    """Computes disentanglement from importances R `(D, F)`, or completeness from R^T; 0 if all importances are 0.

    Rows without importance have no weight.
    """
    totals = importance.sum(1)  # (rows,)
    if not totals.any():
        return 0.0
    share = importance[totals > 0] / totals[totals > 0, None]
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    rows = 1 + (share * logs).sum(1) / np.log(importance.shape[1])
    return float((rows * totals[totals > 0]).sum() / totals.sum())


class SAP(DisentanglementMetric):
    """Separated attribute predictability, for discrete factors.

    Source: Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations"
    (arXiv:1711.00848), section 3.
    """

    outputs = (MetricInfo("sap", "SAP", decimals=3, better="higher"),)
    order = 41
    splits_images = True
    score = staticmethod(sap)


class DCI(DisentanglementMetric):
    """Disentanglement, completeness and informativeness.

    Source: Eastwood & Williams, "A Framework for the Quantitative Evaluation of Disentangled Representations"
    (ICLR 2018, openreview.net/forum?id=By-7dz-AZ), section 2.

    Args:
        classifier: "forest" or "boosting", see `dci`; their values are not comparable.
        enabled: whether the metric is computed.
    """

    outputs = (
        MetricInfo("dci_disentanglement", "DCI disentanglement", decimals=3, better="higher"),
        MetricInfo("dci_completeness", "DCI completeness", decimals=3, better="higher"),
        MetricInfo("dci_informativeness", "DCI informativeness", decimals=3, better="higher"),
    )
    order = 42
    splits_images = True

    def __init__(self, classifier: Classifier, enabled: bool) -> None:
        super().__init__(enabled)
        self.score, self.conditions = partial(dci, classifier=classifier), CLASSIFIERS[classifier]
