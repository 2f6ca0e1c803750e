from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vae_train.evaluation.metrics.base import Estimate
from vae_train.evaluation.metrics.probes import Labeled, knn_probe, linear_probe, majority_class

PROBES = pytest.mark.parametrize("probe", [linear_probe, knn_probe])


def blobs(count, seed=0, distance=20.0):
    """Three classes on the corners of a triangle, with noise of scale 1."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    corners = distance * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return Labeled(corners[y] + rng.normal(size=(count, 2)), y)


def labels(y):
    """Images with classes, whose latents do not matter."""
    return Labeled(None, y)


@PROBES
def test_classes_that_are_apart_are_read_without_error(probe):
    found = probe(blobs(300), blobs(200, seed=1))
    assert found == Estimate(1.0, 0.0, 200, {"num_train": 300})


@PROBES
def test_random_labels_are_guessed_by_majority_class(probe):
    rng = np.random.default_rng(0)
    codes, y = rng.normal(size=(6_000, 3)), rng.integers(0, 4, 6_000)
    found = probe(Labeled(codes[:3_000], y[:3_000]), Labeled(codes[3_000:], y[3_000:]))
    assert found.value == pytest.approx(0.25, abs=4 * found.se)


@PROBES
def test_overlapping_classes_reach_what_bayes_rule_reaches(probe):
    """Two Gaussians 2 apart: the best accuracy is Phi(1)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 12_000)
    codes = rng.normal(size=(12_000, 1)) + 2 * y[:, None]
    found = probe(Labeled(codes[:4_000], y[:4_000]), Labeled(codes[4_000:], y[4_000:]))
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    slack = 0.0 if probe is linear_probe else 0.025  # ten neighbours are a noisy vote
    assert best - slack - 4 * found.se < found.value < best + 4 * found.se


def test_neighbours_vote_by_hand():
    train = Labeled(np.array([[0.0], [1.0], [2.0], [10.0], [11.0]]), np.array([0, 0, 1, 1, 1]))
    tests = np.array([[0.4], [1.9], [10.4]])  # with three neighbours: 0 0 1, 0 0 1, 1 1 1
    assert knn_probe(train, Labeled(tests, np.array([0, 0, 1])), num_neighbors=3).value == 1.0
    assert knn_probe(train, Labeled(tests, np.array([0, 1, 1])), num_neighbors=1).value == 1.0
    assert knn_probe(train, Labeled(tests, np.array([1, 1, 1])), num_neighbors=5).value == 1.0
    assert knn_probe(train, Labeled(tests, np.array([1, 1, 1])), num_neighbors=99).value == 1.0


def test_of_classes_with_equal_votes_the_lowest_is_said():
    train = Labeled(np.array([[0.0], [1.0]]), np.array([7, 3]))
    assert knn_probe(train, Labeled([[0.1], [0.9]], [3, 3]), num_neighbors=2).value == 1.0


def test_more_classes_than_neighbours():
    codes = np.arange(40.0)[:, None]
    train = Labeled(codes, np.arange(40) // 2)
    assert knn_probe(train, train, num_neighbors=3).value >= 0.5
    assert knn_probe(train, Labeled(codes, np.arange(40)), num_neighbors=1).value == pytest.approx(1 / 40)


def test_the_linear_probe_is_blind_to_shifts_and_units():
    (codes, y), (tests, test_y) = blobs(300, distance=2.0), blobs(400, seed=1, distance=2.0)
    units, shift = np.array([1e3, 1e-3]), np.array([-50.0, 7.0])
    plain = linear_probe(Labeled(codes, y), Labeled(tests, test_y))
    assert 0.5 < plain.value < 1
    moved = Labeled(codes * units + shift, y), Labeled(tests * units + shift, test_y)
    assert linear_probe(*moved) == plain


def test_the_linear_probe_cannot_read_exclusive_or_and_neighbours_can():
    rng = np.random.default_rng(0)
    codes = rng.uniform(-1, 1, (2_000, 2))
    y = (codes[:, 0] > 0) ^ (codes[:, 1] > 0)
    cut = Labeled(codes[:1_000], y[:1_000].astype(int)), Labeled(codes[1_000:], y[1_000:].astype(int))
    assert linear_probe(*cut).value < 0.65
    assert knn_probe(*cut).value > 0.9


@PROBES
def test_a_single_class_is_always_said(probe):
    train = Labeled(np.random.default_rng(0).normal(size=(20, 2)), np.full(20, 3))
    found = probe(train, Labeled(np.zeros((4, 2)), [3, 3, 3, 1]))
    assert found.value == 0.75


def test_codes_that_say_nothing_leave_the_linear_probe_at_majority_class():
    y, test_y = np.array([2, 2, 2, 0, 1] * 20), np.array([2, 0, 1, 2])
    codes = np.full((100, 3), 1.5)
    train, test = Labeled(codes, y), Labeled(codes[:4], test_y)
    assert linear_probe(train, test) == majority_class(train, test)
    assert knn_probe(train, test).value <= 1


def test_chance_is_the_most_frequent_class_of_training():
    found = majority_class(labels(torch.tensor([5, 5, 1, 1, 1, 9])), labels(torch.tensor([5, 5, 5, 1])))
    assert found.value == 0.25
    assert (found.n, found.about["num_train"]) == (4, 6)


def test_a_class_that_training_lacks_is_never_right():
    train = blobs(60)
    assert linear_probe(train, Labeled(train.latents, train.y + 100)).value == 0.0


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_standard_error_is_that_of_a_mean(share):
    right = int(share * 50)
    found = majority_class(labels([0, 0]), labels([0] * right + [1] * (50 - right)))
    assert found.value == pytest.approx(share)
    assert found.se == pytest.approx(math.sqrt(share * (1 - share) / 49))


def test_one_test_image_has_no_standard_error():
    assert majority_class(labels([0, 0]), labels([0])).se is None


@PROBES
def test_too_many_training_codes_are_thinned_evenly(probe):
    codes, y = blobs(300)
    order = np.argsort(y, kind="stable")  # the first 30 are of one class
    found = probe(Labeled(codes[order], y[order]), Labeled(codes, y), max_points=30)
    assert (found.value, found.about["num_train"]) == (1.0, 30)


@PROBES
def test_tensors_and_arrays_are_the_same(probe):
    arrays = blobs(100, distance=2.0), blobs(90, seed=1, distance=2.0)
    tensors = [Labeled(*map(torch.from_numpy, part)) for part in arrays]
    assert probe(*tensors) == probe(*arrays)


@pytest.mark.filterwarnings("error")
def test_a_probe_that_does_not_converge_says_nothing():
    train = blobs(100, distance=1.0)
    assert linear_probe(train, train, max_iterations=1).value > 0
