from __future__ import annotations

import math

import pytest
import torch

from vae_train.distributions.normal import Normal
from vae_train.objective.aggregate import aggregate, log_weights
from vae_train.rng import Rng


def posteriors(num, dim=3):
    source = torch.Generator().manual_seed(1)
    mean = torch.randn(num, dim, generator=source).double()
    return Normal(mean, 0.3 * torch.randn(num, dim, generator=source).double() - 1)


def part(q, index):
    return Normal(q.loc[index], q.log_scale[index])


def exact(q, z):
    """log q(z) and the sum of its marginals' logarithms, of the mixture of all of `q`, by torch.distributions."""
    normal = torch.distributions.Normal(q.loc, q.log_scale.exp())
    terms = normal.log_prob(z.unsqueeze(-2))
    return terms.sum(-1).logsumexp(-1) - math.log(len(q.loc)), (terms.logsumexp(-2) - math.log(len(q.loc))).sum(-1)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_a_batch_that_is_the_whole_data_set_is_exact(estimator):
    q = posteriors(7)
    z = q.sample(Rng(0, "x"), 4)
    joint, marginals = aggregate(q, z, 7, estimator)
    expected = exact(q, z)
    shift = math.log(7) if estimator == "weighted" else 0.0  # 1 / (N B), and here N = B
    assert torch.allclose(joint + shift, expected[0])
    assert torch.allclose(marginals + 3 * shift, expected[1])


def test_the_stratified_estimate_of_the_density_is_unbiased():
    q, total = posteriors(6, dim=1), 6
    z = q.sample(Rng(0, "x"), 1)
    expected = exact(q, z)[0].exp()
    found = []
    for a in range(1, total):
        for b in range(1, total):
            if a != b:  # all batches with image 0 in them, of which z is a sample
                joint, _ = aggregate(part(q, [0, a, b]), z[:, [0, a, b]], total, "stratified")
                found.append(joint[0, 0].exp())
    assert torch.stack(found).mean().item() == pytest.approx(expected[0, 0].item(), rel=1e-9)
    assert torch.stack(found).unique().numel() > 5, "no batch differs from another"


def test_weights_sum_to_what_they_should():
    like = torch.zeros((), dtype=torch.float64)
    assert torch.allclose(log_weights(5, 100, "stratified", like).exp().sum(1), torch.ones(5).double())
    assert torch.allclose(log_weights(5, 100, "weighted", like).exp(), torch.full((5, 5), 1 / 500).double())


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
@pytest.mark.parametrize(("batch", "total"), [(1, 1), (1, 50), (8, 4)])
def test_small_splits_give_finite_estimates(estimator, batch, total):
    q = posteriors(batch)
    assert all(value.isfinite().all() for value in aggregate(q, q.sample(Rng(0, "x"), 2), total, estimator))


def test_independent_units_have_no_total_correlation():
    """Posteriors on the corners of a square: q(z) is a product, so both estimates are the same."""
    corners = torch.tensor([[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]]).double()
    q = Normal(corners, torch.zeros(4, 2).double() - 1)
    joint, marginals = aggregate(q, q.sample(Rng(0, "x"), 50), 4, "stratified")
    assert torch.allclose(joint, marginals)
    tied = Normal(corners[[0, 0, 3, 3]], torch.zeros(4, 2).double() - 1)
    joint, marginals = aggregate(tied, tied.sample(Rng(0, "x"), 50), 4, "stratified")
    assert (joint - marginals).mean().item() == pytest.approx(math.log(2), abs=0.01)
