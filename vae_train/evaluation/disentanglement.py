"""How well single latent variables (units) stand for single factors of variation.

Every metric is a function of posterior means and of the factors' values for the same images. The protocols are those of
Locatello et al. (2019), "Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations"
(arXiv:1811.12359) as disentanglement_lib has them: 20 bins, 10,000 points to train on and 5,000 to test on, groups of
64. Where they draw new images, these functions draw from the images at hand, with replacement: what is fixed in a group
is fixed, and the other factors follow the data, which matters where factors depend on each other there.

All metrics lie in [0, 1], more is better, and all want at least two units and two factors. But for ties, and for values
on a bin's edge, none depends on the order and the signs of units; `mig`, `modularity` and `dci` do not depend on their
scales either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vae_train.evaluation.evidence import Figure

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

BINS = 20
"""Of the histogram of a unit."""

NUM_TRAIN, NUM_TEST = 10_000, 5_000
"""Points that a classifier is trained on and tested on."""

GROUP = 64
"""Images, or pairs of them, that make one point of `factor_vae_score` and `beta_vae_score`."""

ACTIVE = 0.05
"""Variance of its mean that a unit must have to take part in `factor_vae_score`."""

TREES, LEAF = 20, 0.003
"""Of a forest of `dci`: how many trees, and the share of the training images that a leaf holds at least."""

CHUNK = 1_000
"""Groups at a time."""

METRICS = (
    "mig",
    "sap",
    "dci_disentanglement",
    "dci_completeness",
    "dci_informativeness",
    "factor_vae_score",
    "beta_vae_score",
    "modularity",
)


class Scores(NamedTuple):
    """All metrics of one representation."""

    figures: dict[str, Figure | None]
    """For each of `METRICS` its "value" and "count", the number of images that were looked at; None without one."""
    why: dict[str, str]
    """For each metric that is None the reason."""
    factors: tuple[str, ...]
    """Names of the factors that were measured: the others do not vary, or never repeat a value."""


def all_scores(codes: Floats, factors: Integers, names: Sequence[str], seed: int) -> Scores:
    """Every metric, on the factors that can be measured.

    2 to 5 s on one core for 10,000 codes with 10 units and 5 factors, in proportion to units × factors.

    Args:
        codes: posterior means with shape `(N, D)`.
        factors: values with shape `(N, F)`.
        names: names of the F factors.
        seed: decides the split of the images, the forest and the groups.
    """
    _check_shapes(codes, factors)
    if len(names) != factors.shape[1]:
        raise ValueError(f"there are {len(names)} names for {factors.shape[1]} factors")
    kept = [i for i, measurable in enumerate(_measurable(factors)) if measurable]
    found, factors = tuple(names[i] for i in kept), factors[:, kept]
    why = _obstacle(codes, factors)
    if why:
        return Scores(dict.fromkeys(METRICS), dict.fromkeys(METRICS, why), found)
    trees = dci(codes, factors, seed)
    every, split = len(codes), sum(map(len, _split(len(codes), seed)))
    figures: dict[str, Figure | None] = {
        "mig": {"value": mig(codes, factors), "count": every},
        "sap": {"value": sap(codes, factors, seed), "count": split},
        "dci_disentanglement": {"value": trees.disentanglement, "count": split},
        "dci_completeness": {"value": trees.completeness, "count": split},
        "dci_informativeness": {"value": trees.informativeness, "count": split},
        "factor_vae_score": {"value": factor_vae_score(codes, factors, seed), "count": every},
        "beta_vae_score": {"value": beta_vae_score(codes, factors, seed), "count": every},
        "modularity": {"value": modularity(codes, factors), "count": every},
    }
    return Scores(figures, {}, found)


def mig(codes: Floats, factors: Integers) -> float:
    """Mutual information gap: Chen et al. (2018), "Isolating Sources of Disentanglement in VAEs", section 4.

    For each factor the two units that know most of it: the difference of their mutual informations with it, divided by
    its entropy; the mean over factors. Mutual information is that of the units' histograms, so a factor with more than
    20 values cannot reach 1, and few images bias it upwards.

    Args:
        codes: posterior means with shape `(N, D)`.
        factors: values with shape `(N, F)`.
    """
    codes, factors = _checked(codes, factors)
    ranked = np.sort(mutual_information(codes, factors), axis=0)  # (D, F)
    entropies = np.array([_information(column, column) for column in _ranks(factors).T])  # (F,)
    return float(((ranked[-1] - ranked[-2]) / entropies).mean())


def modularity(codes: Floats, factors: Integers) -> float:
    """Ridgeway & Mozer (2018), "Learning Deep Disentangled Embeddings with the F-Statistic Loss", section 3.

    For each unit 1 - sum_{f ≠ f*} m_f² / ((F - 1) m_{f*}²), where m_f is its mutual information with factor f and f*
    the factor it knows most of; the mean over units. 1 for a unit that knows one factor only, 0 for one that knows all
    alike, and 0 for a constant one (as in disentanglement_lib). The unit's histogram is that of `mig`. Whether m_f* is
    large does not matter: for noise, the score is that of the biases of the m_f, which differ with the factors' sizes.

    Args:
        codes: posterior means with shape `(N, D)`.
        factors: values with shape `(N, F)`.
    """
    codes, factors = _checked(codes, factors)
    squared = mutual_information(codes, factors) ** 2  # (D, F)
    most = squared.max(1)  # (D,)
    others = squared.sum(1) - most
    informed = most > 0
    return float((1 - others[informed] / (most[informed] * (factors.shape[1] - 1))).sum() / len(most))


def sap(codes: Floats, factors: Integers, seed: int) -> float:
    """Separated attribute predictability: Kumar et al. (2018), "Variational Inference of Disentangled Latent Concepts
    from Unlabeled Observations", section 3, for discrete factors.

    A linear SVM (one against the rest, squared hinge, C = 0.01, balanced classes) predicts each factor from each unit;
    the score is the difference between the accuracies of the two best units, the mean over factors. As the second one
    guesses, a factor with K equally frequent values adds about 1 - 1 / K at most. It adds far less where K > 4: one
    straight line per value cannot single values out along one unit. C multiplies a sum over images, and units are not
    standardised: scores of codes on other scales, or with fewer than some thousand images, do not compare.

    Deviation: two thirds of the images train and the rest tests (10,000 and 5,000 at most), instead of two draws.

    Args:
        codes: posterior means with shape `(N, D)`.
        factors: values with shape `(N, F)`.
        seed: decides the split.
    """
    codes, factors = _checked(codes, factors)
    train, test = _split(len(codes), seed)
    accuracy = np.array(
        [
            [_svm_accuracy(unit[train], values[train], unit[test], values[test]) for values in factors.T]
            for unit in codes.T
        ]
    )  # (D, F)
    ranked = np.sort(accuracy, axis=0)
    return float((ranked[-1] - ranked[-2]).mean())


class DCI(NamedTuple):
    """What `dci` finds, each in [0, 1]."""

    disentanglement: float
    """1 where every unit matters for one factor only."""
    completeness: float
    """1 where every factor is predicted from one unit only."""
    informativeness: float
    """Accuracy of the prediction on images that it was not trained on, the mean over factors."""


def dci(codes: Floats, factors: Integers, seed: int) -> DCI:
    """Eastwood & Williams (2018), "A Framework for the Quantitative Evaluation of Disentangled Representations",
    section 2.

    A classifier predicts each factor from all units; R is the matrix of the units' importances for the factors.
    Disentanglement of a unit is 1 - H_F(its row of R), completeness of a factor 1 - H_D(its column), with entropies of
    normalised importances in base F and D; their means are weighted by the rows' and columns' shares of R.

    Deviations: the classifier is a random forest, as in the paper; the gradient boosted trees of disentanglement_lib
    take a minute for a factor with 40 values (10,000 images). Every split may use every unit, because a split that may
    not use the right one gives importance to the others. Leaves hold 0.3 % of the images at least, where the paper
    searches for a depth. Informativeness is accuracy as in disentanglement_lib, where the paper has an error. Training
    and test images are split as in `sap`.

    Args:
        codes: posterior means with shape `(N, D)`.
        factors: values with shape `(N, F)`.
        seed: decides the split and the forest.
    """
    from sklearn.ensemble import RandomForestClassifier

    codes, factors = _checked(codes, factors)
    train, test = _split(len(codes), seed)
    columns, accuracies = [], []
    for values in factors.T:
        # One thread: the sum over trees in `predict` depends on their order.
        forest = RandomForestClassifier(TREES, max_features=None, min_samples_leaf=LEAF, random_state=seed, n_jobs=1)
        forest.fit(codes[train], values[train])
        columns.append(forest.feature_importances_)
        accuracies.append(float((forest.predict(codes[test]) == values[test]).mean()))
    importance = np.stack(columns, 1)  # (D, F)
    return DCI(concentration(importance), concentration(importance.T), float(np.mean(accuracies)))


def concentration(importance: Floats) -> float:
    """Eastwood & Williams (2018), section 2: disentanglement of importances R `(D, F)`, completeness of R^T.

    A row without importance has no weight; 0 where all rows are without.
    """
    totals = importance.sum(1)  # (rows,)
    if not totals.any():
        return 0.0
    share = importance[totals > 0] / totals[totals > 0, None]
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    rows = 1 + (share * logs).sum(1) / np.log(importance.shape[1])
    return float((rows * totals[totals > 0]).sum() / totals.sum())


def factor_vae_score(codes: Floats, factors: Integers, seed: int) -> float:
    """Kim & Mnih (2018), "Disentangling by Factorising", section 4.

    A point is a group of 64 images that share the value of one factor, drawn at random: the unit whose variance in the
    group, divided by its variance over all images, is smallest votes for that factor. A unit then stands for the factor
    that it voted for most often in 10,000 groups; the score is how often that is right in 5,000 others. Chance is
    1 / F. Units with a variance below 0.05 do not vote (the text of Locatello et al.; disentanglement_lib compares the
    standard deviation). With no other unit the score is 0, as there.

    Args:
        codes: posterior means with shape `(N, D)`.
        factors: values with shape `(N, F)`.
        seed: decides the groups.
    """
    codes, factors = _checked(codes, factors)
    variance = codes.var(0, ddof=1)  # (D,)
    active = variance >= ACTIVE
    if not active.any():
        return 0.0
    scaled, alike = codes[:, active] / np.sqrt(variance[active]), _Alike(factors)
    rng = np.random.default_rng(seed)
    train, test = (_votes(scaled, alike, num, rng) for num in (NUM_TRAIN, NUM_TEST))  # (F, active units)
    right = test[train.argmax(0), np.arange(test.shape[1])]
    return float(right.sum() / test.sum())


def beta_vae_score(codes: Floats, factors: Integers, seed: int) -> float:
    """Higgins et al. (2017), "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework",
    section 3.

    A point is the mean over 64 pairs of images of |difference of their codes|, where the two of each pair share the
    value of one factor. A linear classifier (logistic regression, scikit-learn's C = 1) tells from 10,000 points which
    factor that is; the score is its accuracy on 5,000 others. Chance is 1 / F. Units are not standardised.

    Args:
        codes: posterior means with shape `(N, D)`.
        factors: values with shape `(N, F)`.
        seed: decides the pairs.
    """
    from sklearn.linear_model import LogisticRegression

    codes, factors = _checked(codes, factors)
    alike, rng = _Alike(factors), np.random.default_rng(seed)
    points, labels = _differences(codes, alike, NUM_TRAIN, rng)
    model = LogisticRegression(max_iter=1_000).fit(points, labels)
    return float(model.score(*_differences(codes, alike, NUM_TEST, rng)))


def mutual_information(codes: Floats, factors: Integers) -> NDArray[np.float64]:
    """Mutual information in nats between every unit, cut into 20 bins from its smallest to its largest value, and every
    factor.

    Args:
        codes: posterior means with shape `(N, D)`.
        factors: values with shape `(N, F)`.

    Returns:
        Shape `(D, F)`, at least 0; exactly 0 for a constant unit.
    """
    ranks = _ranks(factors)
    return np.array([[_information(_binned(unit), values) for values in ranks.T] for unit in codes.T])


def _binned(unit: Floats) -> Integers:
    """The bin of each value `(N,)`, 0 to 19."""
    span = np.ptp(unit)
    if span == 0:
        return np.zeros(len(unit), np.int64)
    return np.minimum((unit - unit.min()) / span * BINS, BINS - 1).astype(np.int64)


def _information(a: Integers, b: Integers) -> float:
    """Mutual information in nats of two columns `(N,)` of numbers from 0 on."""
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1)
    # Of whole numbers, so that the logarithm is exactly 0 where a and b are independent.
    expected = joint.sum(1, keepdims=True) * joint.sum(0)
    seen = joint > 0
    return max(0.0, float((joint[seen] * np.log(joint[seen] * len(a) / expected[seen])).sum() / len(a)))


def _ranks(factors: Integers) -> Integers:
    """Each column's values `(N, F)`, numbered from 0 without gaps."""
    return np.stack([np.unique(values, return_inverse=True)[1] for values in factors.T], 1)


def _split(count: int, seed: int) -> tuple[Integers, Integers]:
    """Numbers of the images to train on and to test on: two thirds and one third, at most 10,000 and 5,000."""
    order = np.random.default_rng(seed).permutation(count)
    num_train = min(NUM_TRAIN, count * 2 // 3)
    return order[:num_train], order[num_train:][:NUM_TEST]


def _svm_accuracy(unit: Floats, values: Integers, test_unit: Floats, test_values: Integers) -> float:
    """Accuracy on test images `(M,)` of a linear SVM that is trained on images `(N,)`."""
    from sklearn.svm import LinearSVC

    if np.ptp(values) == 0:  # a rare value may be in no training image; an SVM wants two
        return float((test_values == values[0]).mean())
    # The primal problem: the same solution without drawing random numbers.
    svm = LinearSVC(C=0.01, class_weight="balanced", dual=False).fit(unit[:, None], values)
    return float(svm.score(test_unit[:, None], test_values))


class _Alike:
    """Draws images that share the value of a factor.

    Args:
        factors: values with shape `(N, F)`; in each column at least one value comes twice.
    """

    def __init__(self, factors: Integers) -> None:
        self.num_factors = factors.shape[1]
        self._order = np.argsort(factors, axis=0, kind="stable")  # (N, F)
        counted = [np.unique(values, return_inverse=True, return_counts=True)[1:] for values in factors.T]
        self._first = np.stack([(np.cumsum(counts) - counts)[rank] for rank, counts in counted], 1)  # (N, F)
        self._count = np.stack([counts[rank] for rank, counts in counted], 1)  # (N, F)

    def images(self, factor: Integers, rng: np.random.Generator) -> Integers:
        """For each of the factors `(B,)` an image `(B,)` that is not the only one with its value."""
        drawn = np.empty(len(factor), np.int64)
        for f in range(self.num_factors):
            here = factor == f
            drawn[here] = rng.choice(np.flatnonzero(self._count[:, f] > 1), here.sum())
        return drawn

    def partners(self, image: Integers, factor: Integers, count: int, rng: np.random.Generator) -> Integers:
        """`count` images `(B, count)` for each image `(B,)`, with its value of the factor `(B,)`; it may be drawn."""
        offset = rng.integers(0, self._count[image, factor][:, None], (len(image), count))
        return self._order[self._first[image, factor][:, None] + offset, factor[:, None]]

    def chunks(self, total: int, rng: np.random.Generator) -> Iterator[Integers]:
        """`total` factors, drawn uniformly, in pieces `(B,)`."""
        for start in range(0, total, CHUNK):
            yield rng.integers(0, self.num_factors, min(CHUNK, total - start))


def _votes(scaled: Floats, alike: _Alike, total: int, rng: np.random.Generator) -> Integers:
    """How often each factor's groups had the smallest variance in each unit, `(F, D)`; codes have variance 1."""
    votes = np.zeros((alike.num_factors, scaled.shape[1]), np.int64)
    for factor in alike.chunks(total, rng):
        members = alike.partners(alike.images(factor, rng), factor, GROUP, rng)  # (B, 64)
        np.add.at(votes, (factor, scaled[members].var(1, ddof=1).argmin(1)), 1)
    return votes


def _differences(codes: Floats, alike: _Alike, total: int, rng: np.random.Generator) -> tuple[Floats, Integers]:
    """Points `(total, D)` of `beta_vae_score`, and which factor is shared in each, `(total,)`."""
    points, labels = [], []
    for factor in alike.chunks(total, rng):
        repeated = factor.repeat(GROUP)
        one = alike.images(repeated, rng)
        other = alike.partners(one, repeated, 1, rng)[:, 0]
        points.append(np.abs(codes[one] - codes[other]).reshape(len(factor), GROUP, -1).mean(1))
        labels.append(factor)
    return np.concatenate(points), np.concatenate(labels)


def _measurable(factors: Integers) -> NDArray[np.bool_]:
    """Which factors `(F,)` have more than one value, and some value more than once."""
    distinct = np.array([len(np.unique(values)) for values in factors.T], np.int64)
    return (distinct > 1) & (distinct < len(factors))


def _obstacle(codes: Floats, factors: Integers) -> str:
    """Why nothing can be measured on these factors; empty where it can."""
    if factors.shape[1] < 2:
        return f"two factors with more than one value are needed, and these images have {factors.shape[1]}"
    if codes.shape[1] < 2:
        return "two latent variables are needed, and the model has one"
    return "" if np.isfinite(codes).all() else "some posterior means are not finite"


def _check_shapes(codes: Floats, factors: Integers) -> None:
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise ValueError(f"codes (N, D) and factors (N, F) are wanted, not {codes.shape} and {factors.shape}")
    if not np.issubdtype(factors.dtype, np.integer):
        raise ValueError(f"factors are integers, not {factors.dtype}")


def _checked(codes: Floats, factors: Integers) -> tuple[NDArray[np.float64], Integers]:
    """The codes in float64, and the factors.

    Raises:
        ValueError: the metrics are not defined for them.
    """
    _check_shapes(codes, factors)
    why = _obstacle(codes, factors)
    if not why and not _measurable(factors).all():
        why = f"factors {np.flatnonzero(~_measurable(factors)).tolist()} have a single value, or none that repeats"
    if why:
        raise ValueError(why)
    return codes.astype(np.float64), factors
