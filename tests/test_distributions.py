from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.examples import EXAMPLES
from tests.support import all_distributions, parameters_of
from vae_train.distributions.base import PointMass
from vae_train.distributions.bernoulli import Bernoulli
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.distributions.dequantized import DequantizedNormal
from vae_train.distributions.flows.base import Transformed
from vae_train.distributions.mixture import Product
from vae_train.distributions.multivariate import MultivariateNormal
from vae_train.distributions.normal import Normal
from vae_train.distributions.sphere import VonMisesFisher
from vae_train.rng import Rng

ALL = pytest.mark.parametrize("kind", all_distributions())
BATCH, EVENT = (2, 5), (3, 4)


def example(kind, batch=None, event=None, dtype=torch.float64, seed=0):
    """One of them, with the largest shapes that it takes where none are asked for."""
    about = EXAMPLES[kind]
    batch = (BATCH if BATCH in about.batches else about.batches[-1]) if batch is None else batch
    event = (EVENT if (1, 2, 3) in about.events else about.events[-1]) if event is None else event
    return about.make(batch, event, dtype, seed)


def those(trait):
    """All distributions whose example has a trait."""
    return pytest.mark.parametrize("kind", [k for k in all_distributions() if trait(EXAMPLES[k])])


DENSE = pytest.mark.parametrize("kind", [k for k in all_distributions() if k.has_density])


def cases():
    return [
        (k, batch, event) for k in all_distributions() for batch in EXAMPLES[k].batches for event in EXAMPLES[k].events
    ]


def values_of(found, num=1):
    """Values that the distribution may be asked about: for data on a grid, values on the grid."""
    values = found.sample(Rng(5, "values"), num).detach()
    levels = EXAMPLES[type(found)].levels
    return values if levels is None else (values.clamp(0, 1) * (levels - 1)).round() / (levels - 1)


@pytest.mark.parametrize("kind", [MultivariateNormal, Normal, OneHotCategorical, Product, Transformed, VonMisesFisher])
def test_a_summary_has_the_moments_of_samples(kind):
    found = example(kind, (2,))
    summary = found.summary(Rng(3, "summary"))
    samples = found.sample(Rng(4, "moments"), 4000)
    assert all(tensor.shape[0] == 2 for tensor in summary.values())
    error = 6 * samples.std(0) / (64 if kind is Transformed else 4000) ** 0.5 + 0.02
    assert ((summary["std"] - samples.std(0)).abs() < error).all()
    if kind is not Transformed:  # whose mean is the image of the mean of its base
        assert ((summary["mean"] - samples.mean(0)).abs() < error).all()
    if "codes" in summary:
        blocks = summary["mean"][:, -3 * summary["codes"].shape[-1] :].unflatten(-1, (-1, 3))
        assert torch.equal(summary["codes"], blocks.argmax(-1))


def test_every_distribution_has_an_example():
    assert set(EXAMPLES) == set(all_distributions())


@pytest.mark.parametrize(("kind", "batch", "event"), cases())
def test_shapes(kind, batch, event):
    found = example(kind, batch, event)
    assert (found.batch_shape, found.event_shape) == (batch, event)
    if EXAMPLES[kind].mean:
        assert found.mean.shape == batch + event
    values = values_of(found, 7)
    assert values.shape == (7, *batch, *event)
    if kind.has_density:
        assert found.log_prob(values).shape == (7, *batch)
    z, log_q = found.rsample_and_log_prob(Rng(1, "x"), 3)
    assert z.shape == (3, *batch, *event)
    assert log_q is None or log_q.shape == (3, *batch)


@DENSE
def test_log_prob_broadcasts_values_against_the_batch(kind):
    found = example(kind)
    if not found.batch_shape:
        return
    x = values_of(found)[0][(0,) * len(found.batch_shape)]
    whole = x.expand(*found.batch_shape, *found.event_shape)
    assert torch.allclose(found.log_prob(x), found.log_prob(whole), rtol=1e-12)


@ALL
@pytest.mark.parametrize(
    ("given", "promoted"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_promoted_and_double_stays(kind, given, promoted):
    found = example(kind, dtype=given)
    values = found.sample(Rng(0, "x"), 2)
    assert values.dtype == (torch.int64 if EXAMPLES[kind].indices else promoted)
    if kind.has_density:
        assert found.log_prob(values.to(given)).dtype == promoted
    if EXAMPLES[kind].mean:
        assert found.mean.dtype == promoted


@those(lambda about: about.masks)
def test_unobserved_elements_do_not_count(kind):
    found = example(kind)
    x = values_of(found)[0]
    mask = torch.rand(found.event_shape) < 0.5
    other = torch.where(mask, x, 1 - x)
    assert torch.equal(found.log_prob(x, mask), found.log_prob(other, mask))
    assert torch.allclose(found.log_prob(x, mask) + found.log_prob(x, ~mask), found.log_prob(x))
    none = torch.zeros(found.event_shape[-1:], dtype=torch.bool)
    assert torch.equal(found.log_prob(x, none), torch.zeros(found.batch_shape, dtype=torch.float64))


@those(lambda about: about.masks)
def test_unobserved_elements_have_no_gradient(kind):
    found = example(kind)
    x = values_of(found)[0].requires_grad_()
    mask = torch.ones(found.event_shape, dtype=torch.bool)
    mask[0, 0] = False
    (gradient,) = torch.autograd.grad(found.log_prob(x, mask).sum(), x)
    assert (gradient[..., 0, 0] == 0).all()


@ALL
def test_terms_sum_to_log_prob_where_elements_are_independent(kind):
    found = example(kind)
    x = values_of(found, 3)
    if not found.is_factorized:
        with pytest.raises(NotImplementedError):
            found.log_prob_elementwise(x)
        return
    terms = found.log_prob_elementwise(x)
    assert terms.shape == x.shape
    assert torch.allclose(found._sum(terms), found.log_prob(x), rtol=1e-10, atol=1e-10)


@DENSE
def test_detach_holds_the_parameters_and_not_x(kind):
    found = example(kind)
    if EXAMPLES[kind].indices:
        return  # indices have no gradient
    for leaf in parameters_of(found):
        if leaf.is_floating_point() and leaf.is_leaf:
            leaf.requires_grad_()
    x = values_of(found)[0].requires_grad_()
    held = found.detach()
    score = held.log_prob(x)
    assert torch.equal(score, found.log_prob(x))
    assert not held.log_prob(x.detach()).requires_grad
    if score.requires_grad:
        assert torch.autograd.grad(score.sum(), x)[0].shape == x.shape


@those(lambda about: about.mean)
def test_the_mean_of_draws_is_the_mean(kind):
    found = example(kind)
    values = found.sample(Rng(1, "x"), 20_000)
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - found.mean).abs() < 5 * error + 1e-9).all()


@those(lambda about: about.mean)
def test_the_variance_of_draws_is_the_variance_where_that_is_known(kind):
    found = example(kind)
    try:
        expected = found.variance
    except NotImplementedError:
        return
    values = found.sample(Rng(1, "x"), 20_000)
    square = (values - found.mean) ** 2
    error = square.std(0) / math.sqrt(len(values))
    assert ((square.mean(0) - expected).abs() < 5 * error + 1e-9).all()


@DENSE
def test_draws_are_a_function_of_the_draw(kind):
    found = example(kind)
    first, second, other = (found.sample(Rng(seed, "x"), 3) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert torch.equal(first, other) == issubclass(kind, PointMass)


@those(lambda about: about.scaled)
def test_a_temperature_scales_the_distance_from_the_mean(kind):
    found = example(kind)
    warm, cool, cold = (found.sample(Rng(1, "x"), 50, temperature=t) for t in (1.0, 0.5, 0.0))
    assert torch.allclose(cold, found.mean.expand(cold.shape))
    assert torch.allclose(cool - found.mean, 0.5 * (warm - found.mean))


def test_temperature_0_gives_the_most_probable_bit():
    found = example(Bernoulli)
    cold = found.sample(Rng(1, "x"), 2, temperature=0.0)
    assert torch.equal(cold, (found.mean > 0.5).double().expand(cold.shape))
    warm, cool = (found.sample(Rng(1, "x"), 2000, temperature=t) for t in (1.0, 0.5))
    assert (cool.var(0) < warm.var(0)).all()


@pytest.mark.parametrize("kind", [Normal, DequantizedNormal])
def test_draws_of_normal_distributions_have_their_scale(kind):
    found = example(kind)
    density = found if kind is Normal else found.base
    num, scale = 20_000, density.log_scale.exp()
    if kind is DequantizedNormal:
        scale = scale * found.levels / (found.levels - 1)
    spread = found.sample(Rng(1, "x"), num).std(0) / scale
    assert ((spread - 1).abs() < 5 / math.sqrt(2 * num)).all()


@pytest.mark.parametrize("kind", [Normal, DequantizedNormal])
def test_draws_are_reparameterised(kind):
    found = example(kind)
    density = found if kind is Normal else found.base
    density.loc.requires_grad_()
    density.log_scale.requires_grad_()
    values = found.sample(Rng(1, "x"), 3)
    loc, log_scale = torch.autograd.grad(values.sum(), [density.loc, density.log_scale])
    slope = 1.0 if kind is Normal else found.levels / (found.levels - 1)
    assert torch.allclose(loc, torch.full_like(loc, 3 * slope))
    assert torch.allclose(log_scale, (values - found.mean).sum(0))


def test_bernoulli_draws_are_bits_without_a_gradient():
    logits = torch.zeros(4, requires_grad=True)
    values = Bernoulli(logits).sample(Rng(1, "x"), 50)
    assert set(values.unique().tolist()) == {0.0, 1.0}
    assert not values.requires_grad


def test_normal_density_integrates_to_1():
    found = example(Normal, (6,), (1,))
    x = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    density = found.log_prob(x[:, None, None]).exp()
    assert torch.allclose(torch.trapezoid(density, x, dim=0), torch.ones(6, dtype=torch.float64), atol=1e-10)


def test_bernoulli_mass_sums_to_1():
    found = example(Bernoulli, (6,), (3,))
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    assert torch.allclose(found.log_prob(x[:, None]).exp().sum(0), torch.ones(6, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantised_log_prob_is_the_exact_expectation_over_the_noise(levels):
    k = torch.arange(levels, dtype=torch.float64)
    found = DequantizedNormal(Normal(torch.tensor([0.3]).double(), torch.tensor([-1.7]).double()), levels)
    density = torch.distributions.Normal(found.base.loc, found.base.log_scale.exp())
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(4))
    y = (k[:, None] + (nodes + 1) / 2) / levels
    expected = (density.log_prob(y) * weights / 2).sum(-1)
    assert torch.allclose(found.log_prob(k[:, None] / (levels - 1)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.02, 0.1, 0.3])
def test_dequantised_masses_sum_to_less_than_1_by_less_than_the_gap_of_jensen(scale):
    levels = 256
    found = DequantizedNormal(Normal(torch.tensor([0.5]).double(), torch.tensor([scale]).double().log()), levels)
    k = torch.arange(-4 * levels, 5 * levels, dtype=torch.float64)[:, None]
    total = found.log_prob(k / (levels - 1)).sub(found.log_bins).exp().sum().item()
    assert total <= 1
    assert total > 1 - 1 / (12 * levels**2 * scale**2)


def test_dequantised_mean_is_on_the_scale_of_the_data():
    k = torch.arange(17.0)
    found = DequantizedNormal(Normal((k + 0.5) / 17, torch.zeros(())), 17)
    assert torch.allclose(found.mean, k / 16)


def test_normal_and_bernoulli_equal_torch():
    normal, bernoulli = example(Normal), example(Bernoulli)
    pairs = [
        (normal, torch.distributions.Normal(normal.loc, normal.log_scale.exp())),
        (bernoulli, torch.distributions.Bernoulli(logits=bernoulli.logits)),
    ]
    for ours, theirs in pairs:
        x = ours.sample(Rng(0, "x"), 3)
        expected = torch.distributions.Independent(theirs, 2).log_prob(x)
        assert torch.allclose(ours.log_prob(x), expected, rtol=0, atol=1e-12)
        assert torch.allclose(ours.mean, theirs.mean, rtol=0, atol=1e-12)


def test_extreme_logits_stay_finite():
    found = Bernoulli(torch.tensor([-200.0, 200.0]))
    assert found.log_prob(torch.tensor([0.0, 1.0])) == 0
    assert found.log_prob(torch.tensor([1.0, 0.0])) == -400


def test_only_masses_on_data_with_levels_have_bins():
    assert example(Normal).log_bins is None
    assert example(DequantizedNormal).log_bins == math.log(17)
    assert Bernoulli(torch.zeros(2)).log_bins == 0
    assert Bernoulli(torch.zeros(2), binary=False).log_bins is None
