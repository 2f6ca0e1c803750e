"""The von Mises-Fisher and the uniform distribution against Bessel functions, quadrature and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.special import ive

from tests.examples import numbers
from vae_train.distributions.kl import kl
from vae_train.distributions.sphere import UniformSphere, VonMisesFisher, log_area
from vae_train.rng import Rng

DIMS = pytest.mark.parametrize("dim", [2, 3, 5, 10, 50])
CONCENTRATIONS = pytest.mark.parametrize("k", [0.1, 1.0, 10.0, 100.0, 500.0])


def made(dim, k, seed=0, dtype=torch.float64):
    """One with a batch of 1, and its concentration as a leaf."""
    concentration = torch.tensor([k], dtype=dtype, requires_grad=True)
    return VonMisesFisher(F.normalize(numbers((1, dim), seed), dim=-1).to(dtype), concentration), concentration


def log_normalizer(dim, k):
    order = dim / 2 - 1
    return dim / 2 * math.log(2 * math.pi) - order * math.log(k) + math.log(ive(order, k)) + k


def mean_cosine(dim, k):
    return ive(dim / 2, k) / ive(dim / 2 - 1, k)


@DIMS
@CONCENTRATIONS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_normaliser_and_mean_equal_bessel_functions(dim, k, dtype, tolerance):
    found, _ = made(dim, k, dtype=dtype)
    normalizer = (found.concentration + found.log_excess).item()
    assert normalizer == pytest.approx(log_normalizer(dim, k), rel=tolerance, abs=10 * tolerance)
    assert found.cosine(1).item() == pytest.approx(mean_cosine(dim, k), abs=10 * tolerance)
    second = 1 - (dim - 1) / k * mean_cosine(dim, k)
    assert found.cosine(2).item() == pytest.approx(second, abs=10 * tolerance)


@DIMS
def test_without_concentration_it_is_uniform(dim):
    found, _ = made(dim, 0.0)
    assert (found.concentration + found.log_excess).item() == pytest.approx(log_area(dim), rel=1e-12)
    assert kl(found, UniformSphere(torch.zeros(dim).double())).item() == pytest.approx(0, abs=1e-12)


def test_areas_are_those_of_geometry():
    expected = [2, 2 * math.pi, 4 * math.pi, 2 * math.pi**2]
    assert [math.exp(log_area(dim)) for dim in (1, 2, 3, 4)] == pytest.approx(expected)


@CONCENTRATIONS
def test_density_on_the_circle_integrates_to_1(k):
    found, _ = made(2, k)
    angle = torch.arange(10_000, dtype=torch.float64) * (2 * math.pi / 10_000)
    z = torch.stack([angle.cos(), angle.sin()], -1)
    assert (found.log_prob(z).exp().sum() * (2 * math.pi / 10_000)).item() == pytest.approx(1, abs=1e-10)


@CONCENTRATIONS
def test_density_on_the_ordinary_sphere_is_the_closed_form(k):
    found, _ = made(3, k)
    z = F.normalize(numbers((20, 3), 1), dim=-1)
    log_sinh = k + math.log1p(-math.exp(-2 * k)) - math.log(2)
    expected = math.log(k / (4 * math.pi)) - log_sinh + k * (z * found.direction).sum(-1)
    assert torch.allclose(found.log_prob(z), expected, rtol=1e-11)


@DIMS
@CONCENTRATIONS
def test_draws_lie_on_the_sphere_with_the_right_moments(dim, k):
    found, _ = made(dim, k)
    z = found.sample(Rng(0, "x"), 20_000).detach()
    assert torch.allclose(z.norm(dim=-1), torch.ones(20_000, 1).double())
    error = z.std(0) / math.sqrt(len(z)) + 1e-6
    assert ((z.mean(0) - found.mean).abs() < 5 * error).all()
    square = (z - found.mean) ** 2
    assert ((square.mean(0) - found.variance).abs() < 5 * square.std(0) / math.sqrt(len(z)) + 1e-6).all()


@DIMS
@CONCENTRATIONS
def test_the_inverted_distribution_function_has_the_right_quantiles(dim, k):
    """Evenly spaced numbers stand for all samples: their mean, and its gradient, are exact but for the grid."""
    found, concentration = made(dim, k)
    even = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    mean = torch.tanh(found._inverse_cdf(even[:, None])).mean()
    expected = mean_cosine(dim, k)
    assert mean.item() == pytest.approx(expected, abs=1e-4)
    slope = 1 - expected**2 - (dim - 1) / k * expected
    (sampled,) = torch.autograd.grad(mean, concentration, retain_graph=True)
    assert sampled.item() == pytest.approx(slope, rel=3e-3)
    (closed,) = torch.autograd.grad(found.cosine(1).sum(), concentration)
    assert closed.item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("edge", [0.0, 1e-12, 1 - 2**-24])
@pytest.mark.parametrize("k", [0.0, 1.0, 1e5])
@pytest.mark.parametrize("dim", [2, 50])
def test_the_ends_of_the_distribution_function_have_finite_values_and_gradients(dim, k, edge):
    found, concentration = made(dim, k, dtype=torch.float32)
    u = found._inverse_cdf(torch.full((1, 1), edge))
    (gradient,) = torch.autograd.grad(u.sum(), concentration)
    assert u.isfinite().all()
    assert gradient.isfinite().all()


@DIMS
@pytest.mark.parametrize("k", [0.1, 1.0, 10.0, 100.0])
def test_kl_from_the_uniform_distribution_equals_its_estimate(dim, k):
    q, p = made(dim, k)[0], UniformSphere(torch.zeros(dim).double())
    z = q.sample(Rng(1, "x"), 50_000)
    ratio = (q.log_prob(z) - p.log_prob(z)).detach()
    assert ((ratio.mean(0) - kl(q, p)).abs() < 5 * ratio.std(0) / math.sqrt(len(z))).all()


@pytest.mark.parametrize("dim", [2, 8, 128, 512])
@pytest.mark.parametrize("k", [1.0, 1e2, 1e4, 1e5])
def test_float32_keeps_the_kl_and_the_density_of_concentrated_distributions(dim, k):
    exact, rounded = made(dim, k)[0], made(dim, k, dtype=torch.float32)[0]
    rates = [kl(q, UniformSphere(torch.zeros(dim).to(q.concentration))).item() for q in (exact, rounded)]
    assert rates[1] == pytest.approx(rates[0], abs=3e-4)
    z = exact.sample(Rng(0, "x"), 1000)
    assert torch.allclose(rounded.log_prob(z.float()).double(), exact.log_prob(z), rtol=0, atol=1e-3)


@pytest.mark.parametrize("first", [1.0, -1.0, 0.0])
def test_the_reflection_takes_the_first_axis_to_the_mean(first):
    mean = F.normalize(torch.tensor([[first, 1e-9, 1.0 - abs(first)]], dtype=torch.float64), dim=-1)
    found = VonMisesFisher(mean, torch.ones(1).double())
    axes = torch.eye(3, dtype=torch.float64)[:, None]
    turned = found._reflect(axes)[:, 0]
    assert torch.allclose(turned[0], mean[0], atol=1e-12)
    assert torch.allclose(turned @ turned.mT, torch.eye(3).double(), atol=1e-12)


def test_draws_carry_gradients_to_the_mean():
    """E[z] = A(k) mean, so its gradient with respect to the direction's parameters is known."""
    raw = numbers((1, 4), 3).requires_grad_()
    weight = numbers((4,), 4)
    found = VonMisesFisher(F.normalize(raw, dim=-1), torch.tensor([5.0]).double())
    z = found.sample(Rng(0, "x"), 50_000)
    (sampled,) = torch.autograd.grad((z * weight).sum(-1).mean(), raw, retain_graph=True)
    (exact,) = torch.autograd.grad((found.mean * weight).sum(), raw)
    assert torch.allclose(sampled, exact, atol=0.03)


def test_a_temperature_draws_closer_to_the_mean():
    found, _ = made(5, 3.0)
    spread = [found.sample(Rng(0, "x"), 5000, t).matmul(found.direction[0]).mean().item() for t in (1.0, 0.3, 0.0)]
    assert spread[0] < spread[1] < spread[2]
    assert spread[2] == pytest.approx(1)
    assert spread[1] == pytest.approx(mean_cosine(5, 3.0 / 0.09), abs=5e-3)


def test_one_dimension_is_refused():
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        VonMisesFisher(torch.ones(3, 1), torch.ones(3))
