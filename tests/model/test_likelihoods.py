"""Every likelihood of the catalogue: what it takes, that it is one, and what each promises beyond that."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from tests.support import SMALL, build, build_model, build_objective, choices, compose, run, scalars_of
from vae_train.batch import Batch
from vae_train.distributions.bernoulli import ContinuousBernoulli
from vae_train.distributions.beta import Beta, log_gamma
from vae_train.distributions.dequantized import Dequantized, DequantizedLaplace
from vae_train.distributions.location_scale import Huber, Laplace, StudentT
from vae_train.distributions.logistic import DiscretizedLogistic, LogisticMixture
from vae_train.distributions.similarity import ms_ssim, scales
from vae_train.evaluation.metrics.image_similarity import ms_ssim as judged
from vae_train.model.likelihood.beta import Beta as BetaPixels
from vae_train.model.likelihood.gaussian import Gaussian
from vae_train.model.likelihood.laplace import Laplace as LaplacePixels
from vae_train.model.trace import Trace
from vae_train.rng import FixedNoise, Rng, generator
from vae_train.util.errors import UsageError

NAMES = choices("model/likelihood")
LEVELS = [2, 17, 256, None]
MASSES = ("bernoulli", "categorical", "discretized_logistic", "logistic_mixture")
OPTIMAL = pytest.mark.parametrize(("kind", "power"), [(Gaussian, 2), (LaplacePixels, 1)])
every = pytest.mark.parametrize("name", NAMES)


def likelihood(name, shape=(1, 8, 8), levels=17):
    """The likelihood, or None where it refuses."""
    node = compose(f"model/likelihood={name}").model.likelihood
    try:
        return build(node)(event_shape=shape, levels=levels)
    except UsageError:
        return None


def takers(levels):
    return [name for name in NAMES if likelihood(name, levels=levels) is not None]


def taken(name, shape=(1, 8, 8)):
    """The likelihood, of data that it takes."""
    return next(found for found in (likelihood(name, shape, levels) for levels in LEVELS) if found is not None)


def output(found, *batch, seed=0, scale=1.0):
    """What a decoder may give."""
    noise = torch.randn(*batch, *found.parameter_shape, generator=generator(seed, "output"), dtype=torch.float64)
    return scale * noise


def pixels(shape, levels, *batch, seed=0):
    x = torch.rand(*batch, *shape, generator=generator(seed, "pixels"), dtype=torch.float64)
    return x if levels is None else (x * levels).floor() / (levels - 1)


@every
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_scores_what_it_takes_with_gradients_and_refuses_the_rest(name, levels, channels):
    shape = (channels, 8, 8)
    node = compose(f"model/likelihood={name}").model.likelihood
    partial = build(node)
    knobs = {key: value for key, value in node.items() if not key.startswith("_")}
    refused = partial.target.check_compatible(levels, **knobs)
    found = likelihood(name, shape, levels)
    assert (found is None) == (refused is not None)
    if found is None:
        assert "likelihood" in refused.instead
        return
    assert found.parameter_shape[1:] == (8, 8)
    parameters = output(found, 2, 3, scale=3.0).requires_grad_()
    px, x = found.double()(parameters), pixels(shape, levels, 3)
    assert (px.batch_shape, px.event_shape, px.mean.shape) == ((2, 3), shape, (2, 3, *shape))
    score = px.log_prob(x)
    (gradient,) = torch.autograd.grad(score.sum(), parameters)
    assert score.shape == (2, 3)
    assert score.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert px.sample(Rng(0, "x"), 2).shape == (2, 2, 3, *shape)


@every
def test_bits_per_dim_are_there_where_it_is_a_likelihood_of_levels(name):
    for levels in (2, 17, 256, None):
        found = likelihood(name, levels=levels)
        if found is None:
            continue
        bins = found(output(found, 2)).log_bins
        if levels is None or found.warning is not None:
            assert bins is None
        else:
            assert bins == pytest.approx(0.0 if name in MASSES else math.log(levels))


@every
def test_pixels_that_are_not_observed_do_not_count(name):
    found = taken(name, (3, 8, 8)).double()
    parameters, x = output(found, 2, 4), pixels((3, 8, 8), found.levels, 4)
    mask = torch.rand(4, 1, 8, 8, generator=generator(0, "mask")) < 0.5
    px = found(parameters)
    if name == "ms_ssim":
        with pytest.raises(ValueError, match=r"does not support masks"):
            px.log_prob(x, mask)
        return
    changed = torch.where(mask, x, 1 - x)
    assert torch.equal(px.log_prob(x, mask), px.log_prob(changed, mask))
    assert (px.log_prob(x, mask) != px.log_prob(x)).all()
    with torch.no_grad():
        px = found(parameters)
        assert torch.allclose(px.log_prob(x, mask) + px.log_prob(x, ~mask), px.log_prob(x))


def test_a_pixel_of_dependent_colours_counts_where_all_of_them_are_observed():
    found = taken("logistic_mixture", (3, 8, 8)).double()
    px, x = found(output(found, 4)), pixels((3, 8, 8), found.levels, 4)
    colors = torch.rand(4, 3, 8, 8, generator=generator(0, "mask")) < 0.7
    assert torch.equal(px.log_prob(x, colors), px.log_prob(x, colors.all(1, keepdim=True)))


@pytest.mark.parametrize("name", [n for n in takers(17) if n != "ms_ssim"])
@pytest.mark.parametrize("levels", [17, 256])
def test_masses_of_levels_sum_to_1_or_a_little_less(name, levels):
    found = likelihood(name, (1, 1, 1), levels).double()
    parameters = output(found, 7, scale=0.3)
    # Densities that go on beyond [0, 1] have mass there.
    k = torch.arange(0, levels) if name in (*MASSES, "beta", "continuous_bernoulli") else _wide(levels)
    with torch.no_grad():
        px = found(parameters)
        terms = px.log_prob((k.double() / (levels - 1)).view(-1, 1, 1, 1, 1))
    total = (terms - px.log_bins).exp().sum(0)
    if name in MASSES:
        assert torch.allclose(total, torch.ones(7).double(), rtol=0, atol=1e-10)
    else:
        # The gap of Jensen's inequality is of second order in the width of a level.
        assert (total <= 1 + 1e-9).all()
        assert (total > 1 - (0.1 if levels == 17 else 0.01)).all()


def _wide(levels):
    return torch.arange(-60 * levels, 61 * levels)


@pytest.mark.parametrize("name", takers(None))
def test_densities_of_continuous_data_integrate_to_1(name):
    if likelihood(name).warning is not None or name == "ms_ssim":
        return
    found = likelihood(name, (1, 1, 1), None).double()
    bounded = name in ("beta", "continuous_bernoulli")
    if name == "beta":  # what is clamped has no density of its own
        px = found(output(found, 5, scale=0.3))
        x = torch.linspace(1e-4, 1 - 1e-4, 400_001, dtype=torch.float64)
    else:
        with torch.no_grad():
            px = found(output(found, 5))
        x = torch.linspace(*((0, 1) if bounded else (-60, 60)), 400_001, dtype=torch.float64)
    density = px.log_prob(x.view(-1, 1, 1, 1, 1)).exp()
    total = torch.trapezoid(density, x, dim=0)
    # A t distribution has 1e-9 beyond 60; a beta distribution a little below 1e-4.
    assert torch.allclose(total, torch.ones(5).double(), rtol=0, atol=1e-3 if name == "beta" else 1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ms_ssim"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_of_draws_is_the_mean(name, channels):
    found = taken(name, (channels, 8, 8)).double()
    # Far from the ends, where the mean of dependent colours is exact.
    px = found(output(found, 2, scale=0.02 if name == "logistic_mixture" else 0.5))
    samples = px.sample(Rng(1, "x"), 4000)
    error = samples.std(0) / math.sqrt(len(samples))
    # A level of 1/16 that is drawn less than once in 4000/20 times may not show at all.
    slack = 0.003 if name == "logistic_mixture" and channels == 3 else 20 / (16 * 4000)
    assert ((samples.mean(0) - px.mean).abs() < 5 * error + slack).all()


@pytest.mark.parametrize("name", [*MASSES[1:], "bernoulli"])
def test_draws_of_masses_lie_on_the_levels(name):
    found = taken(name)
    k = found(output(found, 2).float()).sample(Rng(1, "x"), 50) * (found.levels - 1)
    assert torch.allclose(k, k.round(), atol=1e-4)
    assert 0 <= k.min() < k.max() <= found.levels - 1


# The optimal scale


def move(likelihood, px, x, mask=None):
    """One update of the likelihood's state."""
    likelihood.update_state(likelihood.statistics(Trace(x, mask, (), px)))


@OPTIMAL
@pytest.mark.parametrize("levels", [17, 256, None])
def test_the_optimal_scale_is_that_of_maximum_likelihood(kind, power, levels):
    shape = (3, 4, 4)
    found = kind(shape, levels, scale=0.5, scale_mode="optimal").double()
    mean, x = output(found, 2, 5, scale=0.3), pixels(shape, levels, 5)
    mask = torch.rand(5, 1, 4, 4, generator=generator(0, "mask")) < 0.5
    px = found(mean)
    score = px.log_prob(x, mask).sum()
    move(found, px, x, mask)
    fitted = found.scale.log_scale().exp()
    if levels is None:
        error = (x - mean).abs()[mask.expand(2, 5, *shape)] ** power
        assert fitted.item() == pytest.approx(error.mean().item() ** (1 / power), rel=1e-12)
    for factor in (0.9, 1.1):
        other = kind(shape, levels, scale=fitted.item() * factor, scale_mode="fixed").double()
        assert other(mean).log_prob(x, mask).sum() < score


@OPTIMAL
def test_the_gradient_of_the_optimal_scale_is_that_of_the_profiled_likelihood(kind, power):
    found = kind((1, 4, 4), None, scale=0.5, scale_mode="optimal").double()
    mean, x = output(found, 2, 5, scale=0.3).requires_grad_(), pixels((1, 4, 4), None, 5)
    profiled = -mean.numel() / power * ((x - mean).abs() ** power).mean().log()
    expected = torch.autograd.grad(profiled, mean)[0]
    assert torch.allclose(torch.autograd.grad(found(mean).log_prob(x).sum(), mean)[0], expected, rtol=1e-10)


@OPTIMAL
def test_evaluation_does_not_depend_on_batch_mates_and_moves_nothing(kind, power):
    found = kind((1, 4, 4), 17, scale=0.5, scale_mode="optimal").double()
    mean, x = output(found, 2, 5, scale=0.3), pixels((1, 4, 4), 17, 5)
    together = found(mean).log_prob(x)
    alone = torch.cat([found(mean[:, i : i + 1]).log_prob(x[i : i + 1]) for i in range(5)], 1)
    assert not torch.allclose(together, alone)
    before = found.scale.raw.clone()
    with torch.no_grad():
        assert found.statistics(Trace(x, None, (), found(mean))) == {}
        together = found(mean).log_prob(x)
        alone = torch.cat([found(mean[:, i : i + 1]).log_prob(x[i : i + 1]) for i in range(5)], 1)
    assert torch.allclose(together, alone, rtol=1e-12)
    assert torch.equal(before, found.scale.raw)


def test_the_running_average_takes_over_the_first_scale_and_then_follows_slowly():
    found = Gaussian((1, 4, 4), None, scale=0.5, scale_mode="optimal").double()
    x = torch.zeros(1, 1, 4, 4).double()
    move(found, found(x + 0.1), x)
    assert found.scale.log_scale().exp().item() == pytest.approx(0.1)
    for _ in range(300):
        move(found, found(x + 0.2), x)
    assert 0.19 < found.scale.log_scale().exp().item() < 0.2
    state = {name: value.clone() for name, value in found.state_dict().items()}
    other = Gaussian((1, 4, 4), None, scale=0.5, scale_mode="optimal").double()
    other.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(other(x + 0.2).log_prob(x), found(x + 0.2).log_prob(x))


@pytest.mark.parametrize(("levels", "least"), [(17, 1 / 34), (256, 1 / 512), (None, 1e-3)])
@pytest.mark.parametrize("name", ["gaussian_pixel", "sigma_vae"])
def test_exact_reconstructions_do_not_send_the_scale_to_0(name, levels, least):
    found = likelihood(name, levels=levels)
    x = torch.full((2, 1, 8, 8), 0.5)
    given = x if name == "sigma_vae" else torch.cat([x, torch.full_like(x, -50.0)], 1)
    score = found(given).log_prob(x)
    assert score.isfinite().all()
    assert (score < 64 * (-math.log(least) - 0.9)).all()


# Exact values


def test_densities_equal_those_of_torch():
    loc, log_scale = torch.randn(2, 5, dtype=torch.float64, generator=generator(0, "x"))
    x = torch.linspace(-3, 4, 50, dtype=torch.float64)[:, None]
    logits, unit = 8 * loc, torch.linspace(0.01, 0.99, 50, dtype=torch.float64)[:, None]
    scale, a, b = log_scale.exp(), loc.exp(), log_scale.exp()
    pairs = [
        (Laplace(loc, log_scale, 0), torch.distributions.Laplace(loc, scale), x),
        (StudentT(loc, log_scale, 5.0, 0), torch.distributions.StudentT(5.0, loc, scale), x),
        (ContinuousBernoulli(logits, 0), torch.distributions.ContinuousBernoulli(logits=logits), unit),
        (Beta(a, b, 0), torch.distributions.Beta(a, b), unit),
    ]
    for ours, theirs, values in pairs:
        assert torch.allclose(ours.log_prob(values), theirs.log_prob(values), rtol=0, atol=1e-9)
        assert torch.allclose(ours.mean, theirs.mean, rtol=0, atol=1e-7)
    for ours, theirs, _ in pairs[:2]:
        assert torch.allclose(ours.variance, theirs.variance, rtol=1e-6)


@pytest.mark.parametrize("delta", [0.2, 1.0, 4.0])
def test_huber_integrates_to_1_has_its_variance_and_the_loss_of_torch(delta):
    found = Huber(torch.zeros(()).double(), torch.zeros(()).double(), delta, 0)
    x = torch.linspace(-300, 300, 2_000_001, dtype=torch.float64)
    density = found.log_prob(x).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-9)
    assert torch.trapezoid(density * x**2, x).item() == pytest.approx(found.variance.item(), rel=1e-7)
    theirs = torch.nn.functional.huber_loss(x, torch.zeros_like(x), delta=delta, reduction="none")
    assert torch.allclose(found.log_prob(x) - found.log_prob(x.new_zeros(())), -theirs, rtol=1e-10, atol=1e-10)
    samples = found.sample(Rng(0, "x"), 100_000)
    assert samples.var().item() == pytest.approx(found.variance.item(), rel=0.05)
    share = ((x.abs() <= delta) * density).sum().item() * (x[1] - x[0]).item()
    assert (samples.abs() <= delta).double().mean().item() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("levels", [2, 17])
def test_the_closed_form_of_laplace_is_the_exact_expectation_over_the_noise(levels):
    loc = torch.linspace(-0.2, 1.2, 57, dtype=torch.float64)[:, None]
    base = Laplace(loc, torch.tensor(-2.0).double(), 1)
    k = torch.arange(levels, dtype=torch.float64)
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    expected = base.log_prob_elementwise((k + u[:, None, None]) / levels).mean(0)
    found = DequantizedLaplace(base, levels).log_prob_elementwise(k / (levels - 1))
    assert torch.allclose(found, expected, rtol=0, atol=1e-7)


def test_the_quadrature_is_the_expectation_over_the_noise():
    k = torch.arange(17, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))
    y = (k[:, None] + (nodes + 1) / 2) / 17
    for base in (
        StudentT(torch.full((1,), 0.3).double(), torch.tensor(-2.0).double(), 5.0, 1),
        Huber(torch.full((1,), 0.3).double(), torch.tensor(-2.0).double(), 1.0, 1),
        ContinuousBernoulli(torch.full((1,), 0.3).double(), 1),
    ):
        expected = (base.log_prob_elementwise(y) * weights / 2).sum(-1)
        nodes_used = 1 if isinstance(base, ContinuousBernoulli) else 4
        found = Dequantized(base, 17, nodes_used).log_prob_elementwise(k / 16)
        assert torch.allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_continuous_bernoulli_is_smooth_near_even_odds_and_finite_far_from_them(dtype):
    logits = torch.tensor([0.0, 1e-8, -1e-3, 0.0999, 0.1001, -30.0, 80.0], dtype=dtype, requires_grad=True)
    found = ContinuousBernoulli(logits, 1)
    x = torch.full_like(logits, 0.3)
    (gradient,) = torch.autograd.grad(found.log_prob(x).sum(), logits)
    # d/dl log p = x - E[x]
    assert torch.allclose(gradient, x - found.mean, atol=1e-5 if dtype == torch.float32 else 1e-10)
    assert found.mean[0] == 0.5
    samples = found.sample(Rng(0, "x"), 1000)
    assert samples.isfinite().all()
    assert (samples.min() >= 0) & (samples.max() <= 1)
    (gradient,) = torch.autograd.grad(samples.sum(), logits)
    assert gradient.isfinite().all()


def test_continuous_bernoulli_has_no_density_outside_of_the_unit_interval():
    found = ContinuousBernoulli(torch.zeros(3), 0)
    assert found.log_prob(torch.tensor([-0.5, 0.5, 1.5])).tolist() == [-math.inf, 0.0, -math.inf]


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discretized_logistic_sums_to_1_for_extreme_parameters(levels, dtype):
    loc = torch.tensor([-50.0, 0.0, 0.37, 1.0, 1e3], dtype=dtype)[:, None, None]
    log_scale = torch.tensor([-20.0, -5.0, 0.0, 12.0], dtype=dtype)[:, None]
    loc, log_scale = (t.clone().requires_grad_() for t in (loc, log_scale))
    found = DiscretizedLogistic(loc, log_scale, levels, 1)
    terms = found.log_prob_elementwise(torch.arange(levels, dtype=dtype) / (levels - 1))
    assert terms.isfinite().all()
    total = terms.exp().sum(-1)
    assert torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-9)
    for gradient in torch.autograd.grad(terms.sum(), [loc, log_scale]):
        assert gradient.isfinite().all()


def test_a_mixture_of_dependent_colours_sums_to_1_over_all_colours():
    logits, (loc, change) = torch.randn(3, 1, 1).double(), torch.randn(2, 3, 3, 1, 1).double()
    weights = torch.randn(3, 3, 1, 1).double()
    found = LogisticMixture(logits, loc.sigmoid(), change - 2, weights, 5)
    k = torch.arange(5).double() / 4
    x = torch.cartesian_prod(k, k, k).view(-1, 3, 1, 1)
    mass = found.log_prob(x).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-10)
    expected = (mass[:, None, None, None] * x).sum(0)
    samples = found.sample(Rng(0, "x"), 40_000)
    assert ((samples.mean(0) - expected).abs() < 5 * samples.std(0) / 200).all()
    assert torch.allclose(found.mean[0], expected[0], rtol=0, atol=1e-10)


def test_the_uniform_categorical_has_the_entropy_of_the_levels():
    found = likelihood("categorical", (3, 8, 8), 256)
    px = found(torch.full((2, *found.parameter_shape), 3.0))
    bits = -px.log_prob(pixels((3, 8, 8), 256, 2)) / (3 * 8 * 8) / math.log(2) + px.log_bins
    assert torch.allclose(bits, torch.full((2,), 8.0))
    assert torch.allclose(px.mean, torch.full_like(px.mean, 0.5))


def test_the_logits_of_a_categorical_are_those_of_its_pixel():
    found = likelihood("categorical", (3, 8, 8), 17)
    logits = torch.zeros(3, 17, 8, 8)
    logits[2, 11, 4, 5] = 50.0
    mean = found(logits.view(51, 8, 8)).mean
    assert mean[2, 4, 5].item() == pytest.approx(11 / 16)
    mean[2, 4, 5] = 0.5
    assert torch.allclose(mean, torch.full_like(mean, 0.5))


@pytest.mark.parametrize("concentration", [0.01, 0.3, 1.0, 2.5, 400.0])
def test_gamma_draws_have_the_distribution_of_scipy(concentration):
    stats = pytest.importorskip("scipy.stats")
    found = log_gamma(Rng(0, "x"), (20_000,), torch.tensor(concentration).double())
    # log(g) of small concentrations reaches to -10⁵: scipy's distribution of g underflows, that of log g does not.
    assert stats.kstest(found.numpy(), stats.loggamma(concentration).cdf).pvalue > 1e-3


def test_beta_parameters_start_at_the_concentration_and_stay_finite():
    found = BetaPixels((1, 1, 1), None, concentration=10.0)
    px = found(torch.zeros(1, 2, 1, 1))
    assert (px.a + px.b).item() == pytest.approx(10, abs=0.01)
    extreme = torch.tensor([[-200.0, -200.0], [200.0, 200.0], [0.0, -200.0], [-200.0, 200.0]]).view(4, 2, 1, 1)
    extreme.requires_grad_()
    score = found(extreme).log_prob(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1, 1))
    assert score.isfinite().all()
    assert torch.autograd.grad(score.sum(), extreme)[0].isfinite().all()
    assert found(extreme).sample(Rng(0, "x"), 100).isfinite().all()


# MS-SSIM


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 45, 64), (3, 224, 224)], ids=str)
def test_ms_ssim_is_1_for_equal_images_and_falls_with_noise(shape):
    # Blocks, and not noise: noise has no structure that is left at coarser scales.
    blocks = pixels((shape[0], shape[1] // 4 + 1, shape[2] // 4 + 1), None, 4)
    x = blocks.repeat_interleave(4, -1).repeat_interleave(4, -2)[..., : shape[1], : shape[2]]
    noise = 0.1 * torch.randn(x.shape, generator=generator(0, "noise"), dtype=torch.float64)
    equal, near, far = (ms_ssim(x, y) for y in (x, x + noise, x + 3 * noise))
    assert torch.allclose(equal, torch.ones(4).double(), rtol=0, atol=1e-9)
    assert ((far < near) & (near < 0.999) & (far > 0)).all()


def test_ms_ssim_has_scales_that_its_window_fits_into():
    assert [scales(side) for side in (8, 21, 22, 44, 88, 175, 176, 300)] == [1, 1, 2, 3, 4, 4, 5, 5]


def test_ms_ssim_of_large_images_is_that_of_evaluation_but_for_their_borders():
    x = pixels((3, 45, 45), None, 2).repeat_interleave(4, -1).repeat_interleave(4, -2)
    y = (x + 0.1 * torch.randn(x.shape, generator=generator(0, "noise"), dtype=torch.float64)).clamp(0, 1)
    assert ((1 - judged(x, y)) > 0.01).all()
    assert torch.allclose(ms_ssim(x, y), judged(x, y), rtol=0, atol=1e-3)


def test_ms_ssim_of_one_window_is_the_formula():
    x, y = (pixels((2, 7, 7), None, 1, seed=seed) for seed in (0, 1))
    y = 0.5 * (x + y)
    offset = torch.arange(-3, 4).double() ** 2
    weight = torch.exp(-0.5 * (offset[:, None] + offset) / (1.5 * 7 / 11) ** 2)
    weight = weight / weight.sum()
    a, b = ((weight * image).sum((-2, -1), keepdim=True) for image in (x, y))
    xx, yy, xy = ((weight * u * v).sum((-2, -1)) for u, v in ((x - a, x - a), (y - b, y - b), (x - a, y - b)))
    a, b = a.flatten(-3), b.flatten(-3)
    luminance = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
    expected = (luminance * (2 * xy + 9e-4) / (xx + yy + 9e-4)).mean(-1)
    assert torch.allclose(ms_ssim(x, y), expected, rtol=0, atol=1e-12)


def test_ms_ssim_is_no_likelihood_and_says_so():
    found = likelihood("ms_ssim")
    assert found.warning == "MS-SSIM: not a likelihood"
    px = found(torch.zeros(2, 1, 8, 8))
    assert not px.has_density
    assert (px.log_prob(torch.full((2, 1, 8, 8), 0.5)).abs() < 1e-3).all()
    with pytest.raises(UsageError, match="at least 7x7 pixels"):
        build(compose("model/likelihood=ms_ssim").model.likelihood)(event_shape=(1, 1, 16), levels=None)


# Ways of computing


def trained(name, seed=0):
    """A small model with this likelihood, its objective and a batch."""
    levels = taken(name).levels
    cfg = compose(*SMALL, f"model/likelihood={name}", f"seed={seed}")
    model = build_model(cfg, (1, 8, 8), levels)
    return model, build_objective(cfg), Batch(pixels((1, 8, 8), levels, 6).float())


@every
def test_stacked_models_have_the_gradients_of_each(name):
    models = [trained(name, seed)[0] for seed in range(2)]
    _, objective, batch = trained(name)
    noise = torch.randn(2, 1, 6, 3, generator=generator(0, "noise"))

    def loss(parameters, buffers, noise):
        trace = functional_call(models[0], (parameters, buffers), (batch, FixedNoise([noise]), 1))
        return scalars_of(objective, trace, 0)["loss"]

    parameters, buffers = stack_module_state(models)
    gradients, losses = vmap(grad_and_value(loss))(parameters, buffers, noise)
    for i, model in enumerate(models):
        alone = run(model, objective, batch, FixedNoise([noise[i]]), 0)["loss"]
        alone.backward()
        assert torch.allclose(losses[i], alone, rtol=1e-4)
        for key, parameter in model.named_parameters():
            size = parameter.grad.abs().max()
            assert torch.allclose(gradients[key][i], parameter.grad, atol=1e-3 * size + 1e-6, rtol=1e-3), key
        for key, buffer in model.named_buffers():
            assert torch.allclose(buffers[key][i], buffer), key


@every
def test_networks_may_compute_in_bfloat16(name):
    model, objective, batch = trained(name)
    with torch.autocast("cpu", torch.bfloat16):
        trace = model(batch, Rng(0, "x"), 1)
    loss = scalars_of(objective, trace, 0)["loss"]
    loss.backward()
    exact = run(model, objective, batch, Rng(0, "x"), 0)["loss"]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05, abs=1.0)


@pytest.mark.slow
@every
def test_models_compile_to_one_graph(name):
    model, objective, batch = trained(name)
    noise = torch.randn(1, 6, 3, generator=generator(0, "noise"))
    if "compile" not in model.likelihood.capabilities:
        return

    def loss(x, noise):
        return run(model, objective, Batch(x), FixedNoise([noise]), 0)["loss"]

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True)
    eager, fast = loss(batch.x, noise), compiled(batch.x, noise)
    expected = torch.autograd.grad(eager, list(model.parameters()))
    found = torch.autograd.grad(fast, list(model.parameters()))
    assert fast.item() == pytest.approx(eager.item(), rel=1e-4)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-3 * a.abs().max().item() + 1e-6, rtol=1e-3)
