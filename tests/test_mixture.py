"""Mixtures, categorical variables and products against enumeration and the formulas written out."""

from __future__ import annotations

import math

import pytest
import torch

from tests.examples import EXAMPLES, numbers
from vae_train.distributions.bernoulli import Bernoulli
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.distributions.kl import kl, kl_elementwise
from vae_train.distributions.mixture import Mixture, Product
from vae_train.distributions.normal import Normal
from vae_train.rng import Rng


def naive(mixture, x):
    """The formula with a tensor `(*any, M, D)`, in float64."""
    part = mixture.components
    parts = Normal(part.loc.double(), part.log_scale.double(), len(part.event_shape))
    each = parts.log_prob(x.double().unsqueeze(-len(part.event_shape) - 1))
    return torch.logsumexp(each + mixture.log_weights.double(), -1)


def mixture(count=50, dim=40, log_scale=-1.0, dtype=torch.float64):
    scales = log_scale + 0.5 * numbers((count, dim), 1)
    return Mixture(Normal((3 * numbers((count, dim), 0)).to(dtype), scales.to(dtype)), numbers((count,), 2).to(dtype))


@pytest.mark.parametrize("log_scale", [0.0, -3.0, -6.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_the_matrix_product_equals_the_plain_formula(log_scale, dtype, tolerance):
    found = mixture(log_scale=log_scale, dtype=dtype)
    x = found.sample(Rng(0, "x"), 30).view(3, 10, 40)
    expected = naive(found, x)
    assert found.log_prob(x).dtype == dtype
    assert torch.allclose(found.log_prob(x).double(), expected, rtol=tolerance, atol=10 * tolerance)
    far = x + 5
    assert torch.allclose(found.log_prob(far).double(), naive(found, far), rtol=tolerance)


def test_the_matrix_product_has_the_gradients_of_the_plain_formula():
    found = mixture(count=5, dim=3)
    leaves = [found.components.loc.requires_grad_(), found.components.log_scale.requires_grad_()]
    x = numbers((4, 3), 5).requires_grad_()
    ours = torch.autograd.grad(found.log_prob(x).sum(), [*leaves, x])
    theirs = torch.autograd.grad(naive(found, x).sum(), [*leaves, x])
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(ours, theirs, strict=True))


def test_autocast_does_not_reach_the_matrix_product():
    found = mixture(dtype=torch.float32)
    x = found.sample(Rng(0, "x"), 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found.log_prob(x), found.log_prob(x).float())
        under = found.log_prob(x)
    assert torch.equal(under, found.log_prob(x))


def test_a_mixture_equals_torch():
    found = mixture(count=4, dim=3)
    parts = torch.distributions.Normal(found.components.loc, found.components.log_scale.exp())
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=found.log_weights), torch.distributions.Independent(parts, 1)
    )
    x = numbers((7, 3), 5)
    assert torch.allclose(found.log_prob(x), theirs.log_prob(x))
    assert torch.allclose(found.mean, theirs.mean)
    assert torch.allclose(found.variance, theirs.variance)


def test_a_shared_scale_is_one_for_every_component():
    mean = numbers((4, 3), 0)
    shared, spelt = (Mixture(Normal(mean, s), torch.zeros(4)) for s in (torch.tensor(-0.5), torch.full((4, 3), -0.5)))
    x = numbers((7, 3), 5)
    assert torch.allclose(shared.log_prob(x), spelt.log_prob(x))
    assert torch.equal(shared.sample(Rng(0, "x"), 9), spelt.sample(Rng(0, "x"), 9))


def test_components_are_sampled_as_often_as_they_weigh():
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3]).double()
    found = Mixture(Normal(torch.arange(4.0).double()[:, None], torch.full((4, 1), -20.0).double()), weights.log())
    drawn = found.sample(Rng(0, "x"), 20_000).round().long().flatten()
    share = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(share.double(), weights, atol=5 * math.sqrt(0.25 / 20_000))
    assert share[1] == 0


def test_other_components_are_mixed_too():
    part = Bernoulli(numbers((3, 4), 0))
    found = Mixture(part, numbers((3,), 1))
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
    assert found.log_prob(x).exp().sum().item() == pytest.approx(1)
    samples = found.sample(Rng(0, "x"), 20_000)
    assert torch.allclose(samples.mean(0), found.mean, atol=5 * math.sqrt(0.25 / 20_000))


def test_a_mixture_can_be_shifted_and_scaled():
    found = mixture(count=4, dim=1)
    moved = found.affine(torch.tensor([[1.0], [-2.0]]).double(), torch.tensor([[0.5], [-0.5]]).double())
    x = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    density = moved.log_prob(x[:, None, None]).exp()
    assert moved.batch_shape == (2,)
    assert torch.allclose(torch.trapezoid(density, x, dim=0), torch.ones(2).double())
    assert torch.allclose(moved.mean[:, 0], torch.trapezoid(density * x[:, None], x, dim=0))
    assert moved.sample(Rng(0, "x"), 3).shape == (3, 2, 1)


def test_a_mixture_says_what_it_takes():
    with pytest.raises(ValueError, match=r"components with batch \(M,\)"):
        Mixture(Normal(torch.zeros(3, 2), torch.zeros(3, 2)), torch.zeros(4))


def one_hots(blocks, categories):
    eye = torch.eye(categories, dtype=torch.float64)
    rows = torch.cartesian_prod(*[torch.arange(categories)] * blocks).view(-1, blocks)
    return eye[rows].flatten(-2)


def categorical(shape=(5, 6), hard=True, relaxation=0.5, seed=0):
    return OneHotCategorical(numbers(shape, seed).requires_grad_(), 3, relaxation, hard)


def test_categorical_masses_sum_to_1_and_equal_torch():
    found, x = categorical(), one_hots(2, 3)
    assert torch.allclose(found.log_prob(x[:, None]).exp().sum(0), torch.ones(5).double())
    theirs = torch.distributions.OneHotCategorical(logits=found.logits.unflatten(-1, (2, 3)))
    expected = theirs.log_prob(x[:, None].unflatten(-1, (2, 3))).sum(-1)
    assert torch.allclose(found.log_prob(x[:, None]), expected)


def test_categorical_kl_is_the_sum_over_all_values():
    q, p, x = categorical(), categorical((6,), seed=1), one_hots(2, 3)
    log_q, log_p = q.log_prob(x[:, None]), p.log_prob(x[:, None])
    assert torch.allclose(kl(q, p), (log_q.exp() * (log_q - log_p)).sum(0))
    assert kl_elementwise(q, p) is None


def test_categorical_kl_needs_the_same_blocks():
    with pytest.raises(ValueError, match="blocks of 3 categories, but the prior has blocks of 2"):
        kl(categorical(), OneHotCategorical(torch.zeros(6), 2, 0.5, True))


@pytest.mark.parametrize("hard", [True, False])
def test_draws_are_one_hot_where_no_gradient_is_wanted(hard):
    found = categorical(hard=hard)
    with torch.no_grad():
        exact = found.sample(Rng(0, "x"), 20_000)
    assert set(exact.unique().tolist()) == {0.0, 1.0}
    assert (exact.unflatten(-1, (2, 3)).sum(-1) == 1).all()
    assert torch.allclose(exact.mean(0), found.mean, atol=5 * math.sqrt(0.25 / 20_000))
    trained = found.sample(Rng(0, "x"), 20_000)
    assert torch.equal(trained.unflatten(-1, (2, 3)).argmax(-1), exact.unflatten(-1, (2, 3)).argmax(-1))
    assert torch.equal(trained, exact) == hard


@pytest.mark.parametrize("hard", [True, False])
def test_the_gradient_of_a_draw_is_that_of_the_relaxed_one(hard):
    found = categorical(hard=hard)
    uniform = Rng(0, "x").uniform((4, 5, 6), torch.float64)
    gumbel = -(-uniform.log()).log()
    relaxed = ((found.logits + gumbel).unflatten(-1, (2, 3)) / 0.5).softmax(-1).flatten(-2)
    weight = numbers((4, 5, 6), 7)
    (expected,) = torch.autograd.grad((relaxed * weight).sum(), found.logits)
    (ours,) = torch.autograd.grad((found.sample(Rng(0, "x"), 4) * weight).sum(), found.logits)
    assert torch.allclose(ours, expected)


def test_temperatures_sharpen_categorical_draws():
    found = categorical()
    with torch.no_grad():
        warm, cool, cold = (found.sample(Rng(0, "x"), 5000, t) for t in (1.0, 0.5, 0.0))
    sharpened = (found.logits / 0.5).unflatten(-1, (2, 3)).softmax(-1).flatten(-2)
    assert torch.allclose(cool.mean(0), sharpened, atol=5 * math.sqrt(0.25 / 5000))
    assert (cold == cold[0]).all()
    assert not torch.equal(warm, cool)


def test_a_product_is_its_parts_side_by_side():
    normal, other = (EXAMPLES[Normal].make((5,), (size,), torch.float64, size) for size in (2, 3))
    found = Product([normal, other])
    whole = Normal(torch.cat([normal.loc, other.loc], -1), torch.cat([normal.log_scale, other.log_scale], -1))
    x = numbers((4, 5, 5), 0)
    assert torch.allclose(found.log_prob(x), whole.log_prob(x))
    assert torch.allclose(found.variance, whole.variance)
    standard = [Normal(torch.zeros(size).double(), torch.zeros(size).double()) for size in (2, 3, 5)]
    assert torch.allclose(kl(found, Product(standard[:2])), kl(whole, standard[2]))
    assert kl(found, Product(standard[1::-1])) is None


def test_a_product_has_a_closed_kl_where_its_parts_have():
    q, p = (EXAMPLES[Product].make(batch, (5,), torch.float64, seed) for batch, seed in (((4,), 0), ((), 1)))
    expected = sum(kl(one, other) for one, other in zip(q.parts, p.parts, strict=True))
    assert torch.allclose(kl(q, p), expected)
    assert kl_elementwise(q, p) is None
    unknown = Product([p.parts[0], Bernoulli(torch.zeros(3).double())])
    assert kl(q, unknown) is None


def test_parts_of_a_product_have_one_batch():
    with pytest.raises(ValueError, match="differ in the last dimension only"):
        Product([Normal(torch.zeros(3, 2), torch.zeros(3, 2)), Normal(torch.zeros(2, 2), torch.zeros(2, 2))])
