from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from vae_train.evaluation.factor_groups import FactorGroups
from vae_train.evaluation.factors import NUM_TEST, NUM_TRAIN, measurable, obstacle, train_test_split
from vae_train.evaluation.metrics.group_scores import beta_vae_score, factor_vae_score
from vae_train.evaluation.metrics.information_gap import mig, modularity, mutual_information
from vae_train.evaluation.metrics.predictability import CLASSIFIERS, DCI, concentration, dci, sap, svm_accuracy

SEEDED = (sap, dci, factor_vae_score, beta_vae_score)


def grid(*sizes, repeats=50):
    """Every combination of values equally often: factors `(N, F)` that are exactly independent."""
    values = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    return np.tile(values, (repeats, 1))


def noise(count, units, seed=0):
    return np.random.default_rng(seed).standard_normal((count, units))


def values(codes, factors, seed=0):
    """All scores of the factors that can be measured."""
    factors = factors[:, measurable(factors)]
    scores = dict(zip((info.name for info in DCI.outputs), dci(codes, factors, seed), strict=True))
    scores |= {"mig": mig(codes, factors), "modularity": modularity(codes, factors), "sap": sap(codes, factors, seed)}
    seeded = {f.__name__: f(codes, factors, seed) for f in (factor_vae_score, beta_vae_score)}
    return scores | seeded


def joint_entropy(*columns):
    """In nats, counted in a loop."""
    rows = list(zip(*columns, strict=True))
    return -sum(rows.count(row) / len(rows) * math.log(rows.count(row) / len(rows)) for row in set(rows))


# Codes whose scores are known.


def test_one_unit_per_factor_has_the_best_scores():
    factors = grid(2, 3, 2)
    found = values(factors + 1e-3 * noise(len(factors), 3), factors)
    del found["sap"]
    assert found.pop("factor_vae_score") == found.pop("beta_vae_score") == found.pop("dci_informativeness") == 1
    assert sorted(found) == ["dci_completeness", "dci_disentanglement", "mig", "modularity"]
    assert min(found.values()) > 0.97


def test_the_sap_of_one_unit_per_factor_is_what_the_runner_up_does_not_guess():
    factors = grid(2, 3, 2, repeats=500)
    expected = np.mean([1 - 1 / 2, 1 - 1 / 3, 1 - 1 / 2])
    assert sap(factors + 1e-3 * noise(len(factors), 3), factors, 0) == pytest.approx(expected, abs=0.02)


def test_the_sap_of_two_units_for_one_factor_is_that_of_the_other():
    factors = grid(2, 2, repeats=300)
    assert sap(factors[:, [0, 0, 1]].astype(float), factors, 0) == pytest.approx((0 + 1 / 2) / 2, abs=0.03)


def test_two_factors_that_are_rotated_by_45_degrees_cannot_be_told_apart():
    factors = grid(3, 3, repeats=200)
    found = values(factors @ np.array([[1, 1], [1, -1]]) / math.sqrt(2), factors)
    # a + b and a - b know equally much of a, and of b, and do not tell which of the two was fixed.
    assert found["mig"] == pytest.approx(0, abs=1e-12)
    assert found["modularity"] == pytest.approx(0, abs=1e-12)
    assert found["sap"] == pytest.approx(0, abs=0.03)
    assert found["dci_disentanglement"] < 0.05
    assert found["dci_completeness"] < 0.05
    assert found["dci_informativeness"] == 1
    assert found["factor_vae_score"] == pytest.approx(1 / 2, abs=0.03)
    assert found["beta_vae_score"] == pytest.approx(1 / 2, abs=0.03)


def test_noise_is_at_chance():
    factors = grid(3, 3, 3, repeats=200)
    found = values(noise(len(factors), 5), factors)
    assert found["mig"] == pytest.approx(0, abs=0.01)
    assert found["sap"] == pytest.approx(0, abs=0.03)
    assert found["dci_disentanglement"] == pytest.approx(0, abs=0.01)
    assert found["dci_completeness"] == pytest.approx(0, abs=0.01)
    # Any of 3 values; any of 3 factors.
    for name in ("dci_informativeness", "factor_vae_score", "beta_vae_score"):
        assert found[name] == pytest.approx(1 / 3, abs=0.04)


def test_the_modularity_of_noise_is_that_of_the_bias_of_mutual_information():
    factors = grid(4, 4, 4, repeats=100)
    rng = np.random.default_rng(0)
    # 2 N times the estimate of an information that is 0 is chi-squared with (bins - 1) (values - 1) degrees.
    drawn = np.sort(rng.chisquare((20 - 1) * (4 - 1), (10_000, 3)) ** 2, 1)
    expected = (1 - (drawn[:, 0] + drawn[:, 1]) / (2 * drawn[:, 2])).mean()
    assert modularity(rng.random((len(factors), 100)), factors) == pytest.approx(expected, abs=0.04)


def test_one_unit_for_two_factors_is_complete_but_not_disentangled():
    factors = grid(3, 3, 3)
    found = values(np.stack([3 * factors[:, 0] + factors[:, 1], factors[:, 2]], 1).astype(float), factors)
    # Importances (1, 1, 0) and (0, 0, 1); the first unit has two thirds of them.
    assert found["dci_disentanglement"] == pytest.approx(1 - 2 / 3 * math.log(2) / math.log(3), abs=0.01)
    assert found["dci_completeness"] == pytest.approx(1, abs=0.01)
    # Informations (ln 3, ln 3, 0) and (0, 0, ln 3): 1 - 1 / 2 and 1.
    assert found["modularity"] == pytest.approx(3 / 4)
    assert found["mig"] == pytest.approx(1)


def test_two_units_for_one_factor_are_modular_but_not_complete():
    factors = grid(3, 3, repeats=100)
    found = values(factors[:, [0, 0, 1]].astype(float), factors)
    assert found["modularity"] == pytest.approx(1)
    assert found["mig"] == pytest.approx((0 + 1) / 2)
    assert found["dci_disentanglement"] == pytest.approx(1, abs=0.01)
    # Importances (1/2, 1/2, 0) of three units for one factor, (0, 0, 1) for the other.
    assert found["dci_completeness"] == pytest.approx((1 - math.log(2) / math.log(3) + 1) / 2, abs=0.02)
    assert found["factor_vae_score"] == found["beta_vae_score"] == 1


@pytest.mark.parametrize("place", [0, 1, 3])
def test_constant_units_change_modularity_only(place):
    factors = grid(3, 2, 3)
    codes = factors + 0.3 * noise(len(factors), 3)
    plain, padded = values(codes, factors), values(np.insert(codes, place, 0.7, axis=1), factors)
    assert padded.pop("modularity") == pytest.approx(plain.pop("modularity") * 3 / 4)
    # The entropies have another base.
    rest = 1 - plain.pop("dci_completeness")
    assert padded.pop("dci_completeness") == pytest.approx(1 - rest * math.log(3) / math.log(4), abs=0.02)
    assert padded == pytest.approx(plain, abs=0.02)


def test_units_without_any_variance_have_no_score_but_chance():
    factors = grid(3, 2)
    codes = np.broadcast_to([0.5, -1.0], factors.shape)
    found = values(codes, factors)
    zero = ("mig", "sap", "dci_disentanglement", "dci_completeness", "factor_vae_score", "modularity")
    assert [found[name] for name in zero] == [0] * 6
    assert found["beta_vae_score"] == pytest.approx(1 / 2, abs=0.03)


# Properties of all metrics.


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda codes: codes[:, [2, 0, 3, 1]], id="order"),
        pytest.param(lambda codes: codes * [1, -1, -1, 1], id="sign"),
        pytest.param(lambda codes: codes * [1.5, 3, 0.7, 1], id="scale"),
        pytest.param(lambda codes: codes.astype(np.float32), id="precision"),
    ],
)
def test_nothing_depends_on_how_units_are_written_down(change):
    factors = grid(3, 4, 2)
    codes = factors @ np.array([[1, 0.3, 0.1, 0], [0, 1, 0.2, 0.4], [0.2, 0, 1, 0.9]]) + 0.2 * noise(len(factors), 4)
    assert values(change(codes), factors) == pytest.approx(values(codes, factors), abs=0.03)


@pytest.mark.parametrize("metric", SEEDED)
def test_scores_are_a_function_of_the_seed(metric):
    factors = grid(3, 4, 2)
    codes = factors @ np.array([[1, 1, 0], [0, 1, 0.5], [1, 0, 1]]) + noise(len(factors), 3)
    first, again, other = (metric(codes, factors, seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("metric", [mig, modularity, *SEEDED])
@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (noise(8, 2), grid(2, 2, repeats=3), r"\(8, 2\) and \(12, 2\)"),
        (noise(12, 2), grid(2, 2, repeats=3).astype(float), "integers"),
        (noise(12, 2), grid(2, 2, repeats=3)[:, :1], "two factors"),
        (noise(12, 1), grid(2, 2, repeats=3), "two latent dimensions"),
        (noise(12, 2) * math.nan, grid(2, 2, repeats=3), "not finite"),
        (noise(12, 2), grid(2, 1, 2, repeats=3), r"factors \[1\] have a single value"),
        (noise(4, 2), np.array([[0, 0], [0, 1], [1, 2], [1, 3]]), r"factors \[1\].*no value that repeats"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric, codes, factors, message):
    with pytest.raises(ValueError, match=message):
        metric(codes, factors, *([0] if metric in SEEDED else []))


@pytest.mark.parametrize("seed", range(4))
def test_few_images_and_rare_values_have_scores(seed):
    factors = np.array([[0, 0], [0, 1], [0, 2], [0, 0], [1, 1]])
    for value in values(noise(5, 2), factors, seed).values():
        assert 0 <= value <= 1


# Mutual information.


def test_mutual_information_by_hand():
    a = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    b = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    three_of_four = np.array([0, 0, 0, 1, 1, 1, 1, 0])  # equals a in three of four images, whatever b is
    codes, factors = np.stack([a & b, b, three_of_four], 1) * 2.5 - 1, np.stack([a, b], 1)
    quarter = -(1 / 4 * math.log(1 / 4) + 3 / 4 * math.log(3 / 4))  # entropy of a bit that is 1 in one of four
    both = quarter - math.log(2) / 2  # H(a and b) - H(a and b | a)
    expected = np.array([[both, both], [0, math.log(2)], [math.log(2) - quarter, 0]])
    np.testing.assert_allclose(mutual_information(codes, factors), expected, atol=1e-15)
    # The best and the runner-up: `both` and `three_of_four` for a, b and `both` for b.
    gaps = [both - (math.log(2) - quarter), math.log(2) - both]
    assert mig(codes, factors) == pytest.approx(sum(gaps) / 2 / math.log(2))
    assert modularity(codes, factors) == pytest.approx((0 + 1 + 1) / 3)


def test_mutual_information_equals_its_definition():
    rng = np.random.default_rng(0)
    factors = rng.integers(0, (2, 7), (300, 2))
    codes = factors @ rng.standard_normal((2, 3)) + rng.standard_normal((300, 3))
    bins = np.stack([np.digitize(unit, np.histogram(unit, 20)[1][1:-1]) for unit in codes.T], 1)
    for d, binned in enumerate(bins.T.tolist()):
        for f, column in enumerate(factors.T.tolist()):
            expected = joint_entropy(binned) + joint_entropy(column) - joint_entropy(binned, column)
            assert mutual_information(codes, factors)[d, f] == pytest.approx(expected)


def test_gaps_between_values_mean_nothing():
    factors = grid(3, 2)
    assert mig(factors.astype(float), factors * 10 + 5) == pytest.approx(1)


def test_twenty_bins_bound_what_is_known_of_forty_values():
    factors = grid(40, 2, repeats=1)
    # Two values share each bin; the other factor is known whole.
    assert mig(factors.astype(float), factors) == pytest.approx((math.log(20) / math.log(40) + 1) / 2)


# Importances.


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        ([[1, 0], [0, 1]], 1),
        ([[1, 1], [1, 1]], 0),
        ([[0, 0], [0, 0]], 0),
        ([[0.75, 0.25], [0, 0]], 1 + 0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)),
        ([[3, 0], [0.5, 0.5]], 3 / 4 * 1 + 1 / 4 * 0),
        ([[2, 1, 1]], 1 - 1.5 * math.log(2) / math.log(3)),
    ],
)
def test_concentration_is_one_less_the_weighted_entropy(importance, expected):
    assert concentration(np.array(importance, float)) == pytest.approx(expected)


# Classifiers.


def test_the_svm_minimises_its_loss():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 400, p=[0.5, 0.3, 0.2])
    unit = labels**2 + rng.standard_normal(400)

    def loss(line, k):
        # Squared hinge with C = 0.01; liblinear gives the weight of the class to the one, and 1 to the rest.
        one = labels == k
        weight = np.where(one, 400 / (3 * one.sum()), 1.0)
        hinge = np.maximum(0, 1 - np.where(one, 1, -1) * (line[0] * unit + line[1]))
        return line @ line / 2 + 0.01 * (weight * hinge**2).sum()

    lines = [minimize(loss, [0.0, 0.0], (k,), tol=1e-10).x for k in range(3)]
    predicted = np.argmax([slope * unit + offset for slope, offset in lines], 0)
    accuracy = svm_accuracy(unit, labels, unit, labels)
    assert accuracy == pytest.approx((predicted == labels).mean(), abs=1 / 400)


def test_the_forest_predicts_what_a_split_can_tell():
    factors = grid(4, 3)
    codes = np.stack([np.minimum(factors[:, 0], 2), factors[:, 1]], 1).astype(float)
    # Two of the four values look the same: one of them is guessed wrong.
    for classifier, words in CLASSIFIERS.items():
        assert dci(codes, factors, 0, classifier)[2] == pytest.approx((3 / 4 + 1) / 2, abs=0.03)
        assert DCI(classifier, True).conditions == words
    rare = np.array([[0, 0], [0, 1], [0, 2], [0, 0], [1, 1]])  # the first factor has one value in training
    assert all(0 <= score <= 1 for seed in range(4) for score in dci(noise(5, 2), rare, seed, "boosting"))


# Groups.


def test_a_collapsed_unit_does_not_vote():
    factors = grid(3, 3, 3)
    codes = factors * [0.05, 1.0, 1.0]  # standard deviations 0.041, 0.82, 0.82
    # Groups of the first factor vote for the other two units, which stand for the other two factors.
    assert factor_vae_score(codes, factors, 0) == pytest.approx(2 / 3, abs=0.02)
    assert factor_vae_score(0.05 * factors, factors, 0) == 0
    # A variance below 0.05 does not exclude a unit, as in the published code.
    assert factor_vae_score(factors * [0.1, 1.0, 1.0], factors, 0) == 1


def test_a_single_active_unit_stands_for_one_factor():
    factors = grid(3, 3, 3)
    assert factor_vae_score(factors * [1.0, 0.05, 0.05], factors, 0) == pytest.approx(1 / 3, abs=0.02)


def test_images_of_a_group_share_the_value_and_nothing_else():
    factors = np.concatenate([grid(3, 4, repeats=5), [[3, 0]]])  # the value 3 comes once
    alike = FactorGroups(factors, seed=0)
    factor = np.concatenate([*alike.chunks(4_000)])
    image = alike.images(factor)
    members = alike.partners(image, factor, 64)
    assert (members.shape, set(factor)) == ((4_000, 64), {0, 1})
    assert (factors[members, factor[:, None]] == factors[image, factor][:, None]).all()
    assert not np.isin(len(factors) - 1, image[factor == 0])
    # All images with the value are equally likely.
    first = factors[members[(factor == 0) & (factors[image, 0] == 1)], 1]
    assert np.bincount(first.ravel()) / first.size == pytest.approx([0.25] * 4, abs=0.01)


# What can be measured.


def test_factors_that_do_not_vary_are_left_out():
    factors = grid(3, 1, 2, repeats=4)
    assert measurable(factors).tolist() == [True, False, True]
    assert obstacle(noise(24, 3), factors[:, [0, 2]]) is None


@pytest.mark.parametrize(
    ("codes", "factors", "why"),
    [
        (noise(12, 2), grid(4, repeats=3), "these images have 1"),
        (noise(12, 2), grid(4, 1, repeats=3), "these images have 1"),
        (noise(3, 2), grid(1, 1, repeats=3), "these images have 0"),
        (noise(12, 1), grid(2, 2, repeats=3), "two latent dimensions"),
        (noise(12, 2) * math.inf, grid(2, 2, repeats=3), "not finite"),
    ],
)
def test_what_has_no_scores_says_why(codes, factors, why):
    assert why in obstacle(codes, factors[:, measurable(factors)])


def test_many_images_are_cut_to_the_numbers_of_the_protocol():
    train, test = train_test_split(20_000, 0)
    assert (len(train), len(test)) == (NUM_TRAIN, NUM_TEST)
    assert len({*train, *test}) == NUM_TRAIN + NUM_TEST
