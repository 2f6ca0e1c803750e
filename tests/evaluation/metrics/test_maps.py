from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from vae_train.batch import evenly_spaced
from vae_train.evaluation.metrics.maps import pca, tsne


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("count", "most"), [(1, 5), (5, 5), (7, 5), (1_000, 999), (10, 1)])
def test_points_are_spread_evenly_without_repetition(count, most):
    index = evenly_spaced(count, most).tolist()
    assert len(set(index)) == len(index) == min(count, most)
    assert index == sorted(index)
    assert index[0] == 0
    assert most == 1 or index[-1] == count - 1
    assert np.ptp(np.diff(index)) <= 1 if len(index) > 1 else True


def test_points_on_a_line_have_one_component():
    t = np.linspace(-3, 5, 50)
    points, share = pca(np.array([1.0, -2.0, 7.0]) + t[:, None] * np.array([2.0, 1.0, -2.0]))
    assert share == pytest.approx([1.0, 0.0])
    assert np.abs(points[:, 0]) == pytest.approx(3 * np.abs(t - t.mean()))  # the direction has length 3
    assert points[:, 1] == pytest.approx(0, abs=1e-12)
    assert points[0, 0] < 0  # the first of the two largest entries points upwards


def test_a_known_covariance():
    rotation = np.linalg.qr(normal(3, 3))[0]
    white = normal(40, 3, seed=1)
    white = np.linalg.qr(white - white.mean(0))[0]  # orthonormal columns with mean 0
    points, share = pca(white * np.array([2.0, 1.0, 0.5]) @ rotation + 9)
    assert share == pytest.approx([4 / 5.25, 1 / 5.25])
    assert np.abs(points) == pytest.approx(np.abs(white[:, :2] * [2, 1]))


@pytest.mark.parametrize("shape", [(30, 5), (4, 9), (200, 2)])
def test_it_is_scikit_learns_but_for_the_sign(shape):
    codes = normal(*shape)
    points, share = pca(codes)
    expected = PCA(2).fit(codes)
    assert share == pytest.approx(expected.explained_variance_ratio_)
    assert np.abs(points) == pytest.approx(np.abs(expected.transform(codes)))


def test_one_dimension_is_itself():
    codes = normal(20, 1)
    points, share = pca(codes)
    assert points[:, 0] == pytest.approx((codes - codes.mean())[:, 0])
    assert not points[:, 1].any()
    assert share.tolist() == [1.0, 0.0]


def test_two_dimensions_are_rotated():
    codes = normal(20, 2)
    points, share = pca(codes)
    assert share.sum() == pytest.approx(1)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.linalg.norm(codes - codes.mean(0), axis=1))


def test_the_sign_does_not_depend_on_the_order_of_the_points():
    codes = normal(50, 4)
    points, _ = pca(codes)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(50)
        assert pca(codes[order])[0] == pytest.approx(points[order])


def test_the_largest_entry_points_upwards():
    t = normal(50, 1)
    assert np.corrcoef(pca(t * [0.5, -2.0])[0][:, 0], t[:, 0])[0, 1] == pytest.approx(-1)
    assert np.corrcoef(pca(t * [0.5, 2.0])[0][:, 0], t[:, 0])[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 3), (6, 3), (6, 1)])
def test_what_does_not_vary_is_the_origin(shape):
    points, share = pca(np.full(shape, 3.0))
    assert points.shape == (shape[0], 2)
    assert not points.any()
    assert share.tolist() == [0, 0]
    assert not tsne(np.full(shape, 0.1), 0).any()


def test_tensors_and_arrays_are_the_same():
    codes = normal(30, 4).astype(np.float32)
    assert np.array_equal(pca(torch.from_numpy(codes))[0], pca(codes)[0])
    assert pca(torch.from_numpy(codes).bfloat16().requires_grad_())[0].shape == (30, 2)


def test_tsne_is_a_function_of_codes_and_seed():
    codes = normal(120, 5)
    first = tsne(codes, 0)
    assert np.array_equal(first, tsne(codes.copy(), 0))
    with threadpool_limits(2):
        assert np.array_equal(first, tsne(codes, 0))
    assert not np.allclose(first, tsne(codes, 1))


def test_tsne_parts_clusters():
    y = np.arange(150) % 3
    points = tsne(30 * np.eye(3)[y] + normal(150, 3), 0)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distances, math.inf)
    assert (y[distances.argmin(1)] == y).all()


@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (3, 2), (5, 4), (5, 1), (40, 2), (89, 7)])
@pytest.mark.filterwarnings("error")
def test_tsne_of_few_points(shape):
    """So few that a perplexity of 30 is too much."""
    points = tsne(normal(*shape), 0)
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()
    assert len(np.unique(points.round(6), axis=0)) == shape[0]


def test_tsne_of_one_dimension_uses_both_of_its_own():
    assert tsne(normal(60, 1), 0).std(0).min() > 0.1


def test_tsne_thins_evenly():
    codes = normal(50, 3)
    assert np.array_equal(tsne(codes, 0, 20), tsne(codes[evenly_spaced(50, 20).numpy()], 0))


def test_digits_are_parted():
    x, y = load_digits(return_X_y=True)
    x, y = x[:300] / 16, y[:300]
    points = tsne(x, 0)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distances, math.inf)
    assert (y[distances.argmin(1)] == y).mean() > 0.9
