from __future__ import annotations

import pytest
import torch

from vae_train.objective.discrepancies import mmd, sliced_wasserstein
from vae_train.rng import Rng

SCALES = [0.3, 1.0]


def normal(*shape, key=0):
    return Rng(0, "sample", key).normal(shape, torch.float64)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_mmd_is_0_in_expectation_between_draws_of_one_distribution_and_above_it_between_two(kernel):
    found = torch.stack(
        [mmd(normal(30, 4, key=2 * i), normal(30, 4, key=2 * i + 1), kernel, SCALES) for i in range(300)]
    )
    assert found.mean().abs() < 5 * found.std() / 300**0.5
    assert (found < 0).any()
    moved = mmd(normal(500, 4) + 2.0, normal(500, 4, key=1), kernel, SCALES)
    assert moved > 10 * found.std() > 0


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_mmd_is_the_sum_over_pairs(kernel):
    x, y = normal(5, 3), normal(4, 3, key=1)

    def k(a, b):
        t = ((a - b) ** 2).sum() / 6
        return sum(torch.exp(-t / s) if kernel == "rbf" else s / (s + t) for s in SCALES)

    expected = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / 20
    expected += sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / 12
    expected -= 2 * sum(k(a, b) for a in x for b in y) / 20
    assert torch.allclose(mmd(x, y, kernel, SCALES), expected)


def test_distances_of_several_sets_are_averaged():
    x, y, directions = normal(3, 6, 2), normal(6, 2, key=1), normal(9, 2, key=2)
    assert torch.allclose(mmd(x, y, "imq", SCALES), torch.stack([mmd(part, y, "imq", SCALES) for part in x]).mean())
    parts = [sliced_wasserstein(part, y, directions) for part in x]
    assert torch.allclose(sliced_wasserstein(x, y, directions), torch.stack(parts).mean())


def test_one_draw_has_finite_distances():
    x, y = normal(1, 1, 3), normal(1, 3, key=1)
    assert mmd(x, y, "rbf", [1.0]).isfinite()
    assert sliced_wasserstein(x, y, normal(4, 3)).isfinite()


def test_sliced_wasserstein_of_a_shift_is_the_mean_squared_shift_along_the_directions():
    x, shift, directions = normal(50, 3), torch.tensor([1.0, -2.0, 0.5]).double(), normal(200_000, 3, key=2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    few = torch.eye(3).double() * torch.tensor([[1.0], [5.0], [0.1]])  # lengths do not matter
    assert sliced_wasserstein(x, x[order] + shift, few).item() == pytest.approx(shift.square().mean().item())
    found = sliced_wasserstein(x[:5], x[:5] + shift, directions).item()
    assert found == pytest.approx(shift.square().sum().item() / 3, rel=0.01)
    assert sliced_wasserstein(x, x[order], few).item() == pytest.approx(0, abs=1e-12)
