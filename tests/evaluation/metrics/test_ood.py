from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from vae_train.evaluation.metrics.ood import auroc, roc


def scores(count, other, seed=0, shift=1.0, ties=False):
    rng = np.random.default_rng(seed)
    low, high = rng.normal(size=count), rng.normal(size=other) + shift
    return (low.round(), high.round()) if ties else (low, high)


CASES = pytest.mark.parametrize(
    ("count", "other", "ties"), [(30, 20, False), (20, 30, True), (1, 1, False), (1, 9, True), (50, 2, True)]
)


@CASES
def test_it_equals_a_double_loop(count, other, ties):
    low, high = scores(count, other, ties=ties)
    wins = sum((b > a) + 0.5 * (b == a) for a in low for b in high)
    assert auroc(low, high)[0] == pytest.approx(wins / (count * other), abs=1e-15)


@CASES
def test_it_equals_that_of_scikit_learn(count, other, ties):
    low, high = scores(count, other, seed=1, ties=ties)
    y, both = np.repeat([0, 1], [count, other]), np.concatenate([low, high])
    assert auroc(low, high)[0] == pytest.approx(roc_auc_score(y, both))
    false, true = roc(low, high)
    expected = roc_curve(y, both, drop_intermediate=False)
    assert false == pytest.approx(expected[0])
    assert true == pytest.approx(expected[1])


@CASES
def test_it_is_the_area_under_the_curve(count, other, ties):
    low, high = scores(count, other, seed=2, ties=ties)
    false, true = roc(low, high)
    area = (np.diff(false) * (true[1:] + true[:-1]) / 2).sum()
    assert auroc(low, high)[0] == pytest.approx(area)


@CASES
def test_swapping_both_mirrors_it(count, other, ties):
    low, high = scores(count, other, ties=ties)
    there, back = auroc(low, high), auroc(high, low)
    assert there[0] + back[0] == pytest.approx(1)
    assert there[1] == (None if back[1] is None else pytest.approx(back[1]))
    assert auroc(-high, -low)[0] == pytest.approx(there[0])


def test_known_values():
    same = np.arange(10.0)
    assert auroc(same, same)[0] == 0.5
    assert auroc(np.zeros(5), np.zeros(7)) == (0.5, 0.0)
    assert auroc(same, same + 10) == (1.0, 0.0)
    assert auroc(same + 10, same)[0] == 0.0
    assert auroc([0.0, 1.0], [1.0, math.inf])[0] == 0.875


def test_two_gaussians():
    """P(b > a) is Phi(shift / sqrt 2) for Gaussians of scale 1."""
    found = auroc(*scores(20_000, 10_000, shift=1.0))
    assert found[0] == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=4 * found[1])
    assert 0.002 < found[1] < 0.004


def test_only_the_order_of_scores_counts():
    low, high = scores(40, 30)
    assert auroc(np.exp(low), np.exp(high)) == auroc(low, high)


@pytest.mark.parametrize(("count", "other", "ties"), [(200, 100, False), (60, 150, True)])
def test_the_standard_error_is_near_that_of_a_bootstrap(count, other, ties):
    low, high = scores(count, other, ties=ties)
    rng = np.random.default_rng(0)
    again = [auroc(rng.choice(low, count), rng.choice(high, other))[0] for _ in range(1_000)]
    assert auroc(low, high)[1] == pytest.approx(np.std(again), rel=0.1)


def test_the_standard_error_is_the_spread_over_repetitions():
    found = [auroc(*scores(80, 50, seed=seed)) for seed in range(600)]
    spread = np.std([pair[0] for pair in found])
    assert np.mean([pair[1] for pair in found]) == pytest.approx(spread, rel=0.1)


def test_a_single_score_has_no_standard_error():
    assert auroc([0.0], [1.0, 2.0])[1] is None
    assert auroc([0.0, 1.0], [2.0])[1] is None


@pytest.mark.parametrize("use", [auroc, roc])
@pytest.mark.parametrize(
    ("low", "high", "message"),
    [([], [1.0], "shape"), ([1.0], [], "shape"), ([[1.0]], [1.0], "shape"), ([0.0, math.nan], [1.0], "1 of 2 .* NaN")],
)
def test_what_cannot_be_ranked_is_refused(use, low, high, message):
    with pytest.raises(ValueError, match=message):
        use(low, high)


def test_tensors_and_arrays_are_the_same():
    low, high = scores(40, 30)
    assert auroc(torch.from_numpy(low), torch.from_numpy(high)) == auroc(low, high)


def test_rates_rise_from_0_to_1():
    false, true = roc(*scores(40, 30, ties=True))
    for rates in (false, true):
        assert (rates[0], rates[-1]) == (0, 1)
        assert (np.diff(rates) >= 0).all()
