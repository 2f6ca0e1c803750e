"""Priors that are fitted to encodings."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from tests.support import BUILDER, CONF, build, locate, plain
from vae_train.distributions.normal import Normal
from vae_train.model.prior.fitted.base import log_density
from vae_train.rng import Rng, generator
from vae_train.runs.fitted_priors import copy_state, fit_prior

SETTINGS = {
    "gmm": {"components": 3},
    "kde": {"centers": 500, "bandwidth": "validated"},
    "flow": {"transforms": 2, "bins": 6, "hidden": [16], "steps": 400, "patience": 3, "batch_size": 256, "lr": 5e-3},
}
FITTED = sorted(path.stem for path in (CONF / "fitted_prior").glob("*.yaml"))
KINDS = [
    kind for kind in FITTED if not locate(OmegaConf.load(CONF / "fitted_prior" / f"{kind}.yaml")._target_).over_codes
]
"""Those of vectors in R^D."""
kinds = pytest.mark.parametrize("kind", KINDS)


def two_moons(count: int, key: int = 0) -> torch.Tensor:
    """Points around two half circles, far from the origin: nothing like N(0, I)."""
    source = generator(0, "moons", key)
    angle = math.pi * torch.rand(count, generator=source, dtype=torch.float64)
    side = (torch.rand(count, generator=source) < 0.5).double()
    points = torch.stack([angle.cos() + side, (1 - 2 * side) * angle.sin()], -1)
    return 4 + 3 * points + 0.3 * torch.randn(count, 2, generator=source, dtype=torch.float64)


def node(kind: str, **settings: object):
    cfg = OmegaConf.merge(OmegaConf.load(CONF / "fitted_prior" / f"{kind}.yaml"), SETTINGS[kind], settings)
    return plain(cfg)


def made(kind: str, z: torch.Tensor, shape: tuple[int, ...] = (2,), **settings: object):
    return fit_prior(node(kind, **settings), SimpleNamespace(latent_shape=shape, data_shape=(1, 8, 8)), z, 0, BUILDER)


def gain(z: torch.Tensor, prior) -> torch.Tensor:
    return prior.log_prob(z.float()) - standard(z)


def standard(z: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros(z.shape[1], dtype=z.dtype)
    return log_density(Normal(zero, zero), z)


@kinds
def test_a_fitted_density_beats_a_prior_that_is_far_away(kind: str) -> None:
    prior = made(kind, two_moons(2000))
    there = two_moons(1000, 1).float()
    assert gain(there, prior).mean() > 10
    normal = made("gmm", two_moons(2000), components=1)
    assert prior.log_prob(there).mean() > normal.log_prob(there).mean().item() + 0.15


@pytest.mark.slow
def test_a_flow_is_fitted_to_maps_with_couplings() -> None:
    prior = made("flow", two_moons(2000), (2, 1, 1), transforms=4)
    there = two_moons(1000, 1).float()
    normal = made("gmm", two_moons(2000), components=1)
    assert prior.log_prob(there).mean() > normal.log_prob(there).mean().item() + 0.15
    with torch.no_grad():
        samples = prior(None).sample(Rng(0, "x"), 2000)
    assert samples.shape == (2000, 2, 1, 1)
    assert torch.allclose(samples.flatten(1).mean(0).double(), two_moons(2000).mean(0), atol=0.25)


@kinds
def test_fitted_densities_integrate_to_1(kind: str) -> None:
    prior = made(kind, two_moons(1000))
    axis = torch.linspace(-6, 16, 441)
    density = prior.log_prob(torch.cartesian_prod(axis, axis)).exp().view(441, 441)
    total = torch.trapezoid(torch.trapezoid(density, axis.double()), axis.double())
    assert total.item() == pytest.approx(1, abs=2e-3)


@kinds
def test_draws_are_like_the_encodings(kind: str) -> None:
    z = two_moons(2000)
    prior = made(kind, z)
    with torch.no_grad():
        samples = prior(None).sample(Rng(0, "x"), 4000).double()
    assert torch.allclose(samples.mean(0), z.mean(0), atol=0.25)
    assert torch.allclose(samples.std(0), z.std(0), rtol=0.15)


@kinds
def test_a_saved_density_is_the_same_again(kind: str, tmp_path: Path) -> None:
    z = two_moons(600)
    prior = made(kind, z, (2, 1))
    torch.save(copy_state(prior), tmp_path / "prior.pt")
    again = build(node(kind))(event_shape=(2, 1), data_shape=(1, 8, 8))
    again.load_weights(torch.load(tmp_path / "prior.pt", weights_only=True))
    assert torch.equal(again.log_prob(z.float()), prior.log_prob(z.float()))
    repeated = made(kind, z, (2, 1))
    assert torch.equal(repeated.log_prob(z.float()), prior.log_prob(z.float()))


def test_one_component_is_the_mean_and_the_covariance() -> None:
    z = two_moons(500)
    prior = made("gmm", z, components=1)
    assert torch.allclose(prior.means[0].double(), z.mean(0), atol=1e-5)
    covariance = (prior.factors @ prior.factors.mT)[0].double()
    assert torch.allclose(covariance, torch.cov(z.T, correction=0), rtol=1e-4, atol=1e-4)


def test_the_gap_is_0_where_the_prior_is_the_truth_and_at_most_that_where_it_is_fitted() -> None:
    z = torch.randn(4000, 2, generator=generator(0, "z"), dtype=torch.float64)
    prior = made("gmm", z, components=1)
    assert gain(z, prior).mean() >= -1e-5  # maximum likelihood, on the encodings that it was fitted to
    there = torch.randn(4000, 2, generator=generator(1, "z"), dtype=torch.float64)
    values = gain(there, prior)
    assert abs(values.mean()) < 5 * values.std() / math.sqrt(4000) + 5e-3


def test_scotts_bandwidth_is_that_of_scott() -> None:
    z = two_moons(800)
    prior = made("kde", z, centers=10_000, bandwidth="scott")
    assert len(prior.centers) == 720  # without those that are held out
    expected = 720 ** (-1 / 6) * z.std(0)
    assert torch.allclose(prior.log_scale.double().exp(), expected, rtol=0.1)
    given = made("kde", z, bandwidth=0.5)
    assert torch.allclose(given.log_scale.double().exp(), 0.5 * z.std(0), rtol=0.1)


def test_units_that_never_move_do_no_harm() -> None:
    z = two_moons(400)
    z[:, 1] = 2.0
    for kind in KINDS:
        prior = made(kind, z)
        assert prior.log_prob(z.float()).isfinite().all()


def test_too_few_encodings_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        made("gmm", two_moons(5), components=10)
