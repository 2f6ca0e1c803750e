from __future__ import annotations

import math

import pytest
import torch

from tests.support import NOISE, SMALL, build_model, compose, loaded
from vae_train.distributions.kl import kl
from vae_train.distributions.normal import Normal
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.encodings import Encodings, encode
from vae_train.evaluation.metrics.latent_activity import Activity, diagnosis, latent_activity
from vae_train.evaluation.metrics.rate_decomposition import ceiling_notes, decompose
from vae_train.rng import generator


def made(mean, log_scale, seed=0):
    """Codes of normal posteriors under a standard normal prior."""
    mean, log_scale = mean.double(), log_scale.double().expand_as(mean)
    noise = torch.randn(mean.shape, generator=generator(seed, "z"), dtype=torch.float64)
    zeros = torch.zeros(mean.shape[1], dtype=torch.float64)
    return Encodings(
        mean, mean + log_scale.exp() * noise, Normal(mean, log_scale), Normal(zeros, zeros), zeros.exp(), None
    )


def evenly_spaced(count, units, seed=0):
    return torch.randn(count, units, generator=generator(seed, "mean"))


def test_units_whose_mean_does_not_move_are_not_active():
    mean = evenly_spaced(500, 4) * torch.tensor([1.0, 0.3, 0.05, 0.0])
    found = latent_activity(made(mean, torch.zeros(())))
    assert found.num_active == 2
    assert torch.allclose(found.variance, mean.double().var(0, unbiased=False))


@torch.no_grad()
def test_kl_of_units_adds_up_to_the_rate():
    cfg = compose(*SMALL)
    data = loaded(cfg)
    model, images = build_model(cfg, data.facts.data_shape, data.facts.levels), data.split("test")
    found = encode(model, images, noise=NOISE)
    q = model.encode(images.fetch(torch.arange(len(images))).x)
    assert float(latent_activity(found).kl.sum()) == pytest.approx(
        float(kl(q, model.prior(model.encode)).mean()), rel=1e-4
    )
    assert float(latent_activity(found).kl.sum()) == pytest.approx(
        image_bounds(model, images, noise=NOISE)["rate"].mean().item(), rel=1e-4
    )
    assert found.y.shape == (360, 1)
    assert torch.allclose(found.mean, encode(model, images, noise=NOISE, batch_size=7).mean, rtol=0, atol=1e-6)


def test_the_parts_of_the_rate_add_up():
    found = decompose(made(2 * evenly_spaced(300, 3), torch.full((), -1.0)))
    parts = (found["mutual_information"], found["total_correlation"], found["dimension_wise_kl"])
    assert sum(part.value for part in parts) == pytest.approx(found["rate"].value, abs=1e-9)
    assert all(part.se > 0 for part in parts)


def test_posteriors_that_do_not_overlap_have_the_information_of_the_number():
    found = decompose(made(1000.0 * torch.arange(256)[:, None].float(), torch.full((), -2.0)))
    assert found["mutual_information"].value == pytest.approx(math.log(256), abs=1e-6)
    assert found["total_correlation"].value == pytest.approx(0.0, abs=1e-9)


def test_an_estimate_at_its_ceiling_is_called_a_bound():
    notes = ceiling_notes(0.96 * math.log(256), 256)
    assert notes["mutual_information"]["conditions"] == "at its ceiling, log 256 = 5.55: a lower bound"
    assert notes["total_correlation"]["conditions"].startswith("an upper bound: mutual information is at its ceiling")
    assert not ceiling_notes(0.9 * math.log(256), 256)


def test_a_collapsed_posterior_has_no_information():
    found = decompose(made(torch.zeros(300, 4), torch.zeros(())))
    for part in found.values():
        assert part.value == pytest.approx(0.0, abs=1e-9)


def test_the_aggregate_of_normal_means_is_normal():
    """Means from N(0, 1 - s²) and posteriors with scale s: the aggregate is the prior, and the rate is information."""
    s = 0.6
    found = decompose(made(math.sqrt(1 - s**2) * evenly_spaced(8000, 1), torch.tensor(math.log(s))))
    assert found["mutual_information"].value == pytest.approx(-math.log(s), abs=0.03)
    assert found["dimension_wise_kl"].value == pytest.approx(0.0, abs=0.01)
    assert found["total_correlation"].value == pytest.approx(0.0, abs=1e-9)


def test_correlated_units_have_the_total_correlation_of_their_normal_distribution():
    """Two units with the same mean from N(0, 1): TC = -½ log(1 - rho²), rho = 1 / (1 + s²)."""
    s = 0.5
    mean = evenly_spaced(6000, 1).expand(-1, 2)
    found = decompose(made(mean, torch.tensor(math.log(s))))
    rho = 1 / (1 + s**2)
    assert found["total_correlation"].value == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.04)


@pytest.mark.parametrize("scale", [1 / 128, 30.0])
def test_activity_is_relative_to_the_prior(scale):
    mean, zeros = evenly_spaced(500, 3) * torch.tensor([1.0, 0.3, 0.05]), torch.zeros(3).double()
    plain, scaled = made(mean, zeros), made(scale * mean + 5, zeros + math.log(scale))
    scaled = scaled._replace(p=Normal(zeros + 5, zeros + math.log(scale)), prior_std=zeros + scale)
    for one, other in zip(latent_activity(plain), latent_activity(scaled), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_other_distributions_have_no_parts():
    assert latent_activity(made(evenly_spaced(10, 2), torch.zeros(()))._replace(p=None)).kl is None


def used(active, units, mean=0.0, std=1.0):
    variance = torch.zeros(units).double()
    variance[:active] = 0.5
    return Activity(variance, None, torch.full((units,), mean), torch.full((units,), std))


def rate(nats):
    return torch.full((10,), nats)


@pytest.mark.parametrize(("active", "nats", "moments", "words"), [
    ((0, 32), 0.02, {}, ["posterior collapse", "none of 32 latent dimensions", "lower beta (it was 4)", "warm it up"]),
    ((9, 32), 0.02, {}, ["posterior collapse", "9 of 32 latent dimensions", "a rate of 0.02 nats"]),
    ((0, 32), 3.8, {}, ["none of 32 latent dimensions is active at a rate of 3.80 nats", "hardly depends on x"]),
    ((3, 32), 5.0, {}, ["3 of 32 latent dimensions are active", "lower beta", "fewer latent dimensions"]),
    ((10, 10), 5.0, {"mean": 3.0}, ["far from the prior in 10 of 10", "raise beta"]),
    ((10, 10), 5.0, {"std": 5.0}, ["far from the prior in 10 of 10"]),
])  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_try(active, nats, moments, words):
    said = diagnosis(used(*active, **moments), rate(nats), True, 4.0)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(("active", "nats", "moments"), [((0, 32), 0.02, {}), ((10, 10), 5.0, {"mean": 3.0})])
def test_no_beta_is_suggested_for_an_objective_without_one(active, nats, moments):
    said = diagnosis(used(*active, **moments), rate(nats), True, None)
    assert said is not None
    assert "beta" not in said


@pytest.mark.parametrize("found", [used(20, 50), used(10, 10), used(2, 2), used(1, 1)])
def test_nothing_is_said_of_healthy_latents(found):
    assert diagnosis(found, rate(3.8), True, 1.0) is None


def test_a_prior_that_is_not_normal_is_not_compared_with_the_first_moments():
    assert diagnosis(used(10, 10, mean=3.0), rate(3.8), False, 1.0) is None


def test_von_mises_fisher_latents_are_active_relative_to_the_sphere():
    cfg = compose(*SMALL, "latent_dim=64", "model/posterior=von_mises_fisher", "model/prior=uniform_sphere")
    data = loaded(cfg)
    model = build_model(cfg, data.facts.data_shape, data.facts.levels)
    with torch.no_grad():
        *_, bias = model.encoder.parameters()
        bias[-1] = 60.0  # the concentration
    found = encode(model, data.split("test"), noise=NOISE)
    assert torch.allclose(found.prior_std, torch.full((64,), 1 / 8))
    activity = latent_activity(found)
    assert found.mean.var(0).max() < 0.01 < activity.variance.min()
    rates = image_bounds(model, data.split("test"), noise=NOISE)["rate"]
    assert rates.mean() > 0.5
    assert "collapse" not in (diagnosis(activity, rates, False, 1.0) or "")
