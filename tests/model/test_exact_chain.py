"""A two-level linear-Gaussian chain, whose evidence is known: p(z1) p(z2 | z1) p(x | z2), all normal and linear.

The second layer depends on the sample of the first, so its q and p have batch (K, B).
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.support import scalars_of
from vae_train.batch import Batch
from vae_train.distributions.base import Distribution
from vae_train.distributions.multivariate import MultivariateNormal
from vae_train.distributions.normal import Normal
from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Latent, Trace
from vae_train.model.traits import LayerTraits, ModelTraits
from vae_train.objective.iwae import IWAE
from vae_train.rng import Rng

TOP, BOTTOM, PIXELS = 2, 3, 6
NOISE, PIXEL_NOISE = 0.7, 0.5
"""Standard deviations of z2 given z1, and of x given z2."""


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Chain(LatentVariableModel):
    """z1 ~ N(0, I), z2 ~ N(A z1, s² I), x ~ N(C z2, t² I), with q(z1 | x) q(z2 | z1, x).

    Args:
        exact: whether q is the posterior; otherwise its means are shrunk and its covariances widened.
    """

    def __init__(self, exact: bool) -> None:
        super().__init__()
        self.data_shape, self.levels, self.exact = (1, 1, PIXELS), None, exact
        self.a, self.c = matrix(BOTTOM, TOP, 0), matrix(PIXELS, BOTTOM, 1)
        eye = torch.eye(PIXELS, dtype=torch.float64)
        self.cov_given_top = NOISE**2 * self.c @ self.c.T + PIXEL_NOISE**2 * eye
        self.evidence = torch.distributions.MultivariateNormal(
            torch.zeros(PIXELS, dtype=torch.float64), self.c @ self.a @ self.a.T @ self.c.T + self.cov_given_top
        )

    @classmethod
    def traits(cls, **settings):
        return ModelTraits((LayerTraits(is_factorized=False), LayerTraits(is_factorized=False)))

    def posterior(self, mean: Tensor, precision: Tensor) -> Distribution:
        scale = 1.0 if self.exact else 1.3
        factor = scale * torch.linalg.cholesky(torch.linalg.inv(precision))
        return MultivariateNormal(mean if self.exact else 0.8 * mean, factor.expand(*mean.shape, -1))

    @property
    def latent_shapes(self):
        return (TOP,), (BOTTOM,)

    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        latents = self.infer(batch.x, None, rng, num_samples)
        return Trace(batch.x, None, latents, self.decode_latents([latent.z for latent in latents]))

    def infer(self, x, y, rng, num_samples=1, temperature=1.0):
        x = x.flatten(1)
        map_top = self.c @ self.a
        precision = torch.eye(TOP, dtype=torch.float64) + map_top.T @ torch.linalg.solve(self.cov_given_top, map_top)
        mean = torch.linalg.solve(precision, map_top.T @ torch.linalg.solve(self.cov_given_top, x.T)).T
        q1 = self.posterior(mean, precision)
        z1 = q1.sample(rng, num_samples)  # (K, B, TOP)

        prior_mean = z1 @ self.a.T  # (K, B, BOTTOM)
        precision = torch.eye(BOTTOM, dtype=torch.float64) / NOISE**2 + self.c.T @ self.c / PIXEL_NOISE**2
        target = prior_mean / NOISE**2 + (x / PIXEL_NOISE**2) @ self.c
        q2 = self.posterior(torch.linalg.solve(precision, target.mT).mT, precision)
        z2 = q2.sample(rng, 1)[0]

        zero = torch.zeros(TOP, dtype=torch.float64)
        p2 = Normal(prior_mean, torch.tensor(math.log(NOISE), dtype=torch.float64))
        return Latent(z1, q1, Normal(zero, zero)), Latent(z2, q2, p2)

    def decode_latents(self, z, y=None):
        mean = (z[1] @ self.c.T).unflatten(-1, self.data_shape)
        return Normal(mean, torch.tensor(math.log(PIXEL_NOISE), dtype=torch.float64), 3)

    def sample(self, num, rng, temperature=1.0, y=None):
        raise NotImplementedError


def batch_of(model: Chain, size: int) -> Batch:
    torch.manual_seed(0)
    return Batch(model.evidence.sample((size,)).unflatten(-1, model.data_shape))


def iwae(model: Chain, batch: Batch, num_samples: int, seed: int = 0) -> Tensor:
    trace = model(batch, Rng(seed, "x"), num_samples)
    return -scalars_of(IWAE(num_samples, "standard"), trace)["loss"]


@pytest.mark.parametrize("num_samples", [1, 2, 7])
def test_every_bound_of_the_exact_posterior_is_the_evidence(num_samples):
    model = Chain(exact=True)
    batch = batch_of(model, 20)
    log_p = model.evidence.log_prob(batch.x.flatten(1))
    trace = model(batch, Rng(0, "x"), num_samples)
    assert [latent.q.batch_shape for latent in trace.latents] == [(20,), (num_samples, 20)]
    assert torch.allclose(trace.log_weight(), log_p.expand(num_samples, 20), rtol=0, atol=1e-9)
    assert torch.allclose(iwae(model, batch, num_samples), log_p.mean(), rtol=0, atol=1e-9)
    sampled = trace.log_likelihood().mean(0) + sum(latent.log_ratio().mean(0) for latent in trace.latents)
    assert torch.allclose(sampled, log_p, rtol=0, atol=1e-9)


def test_the_elbo_with_closed_rates_is_the_evidence_in_expectation():
    model = Chain(exact=True)
    batch, num_samples = batch_of(model, 3), 50_000
    trace = model(batch, Rng(0, "x"), num_samples)
    assert all(latent.rate().shape == (3,) for latent in trace.latents)
    per_sample = trace.log_likelihood() - trace.latents[1].rate()
    error = per_sample.std(0) / math.sqrt(num_samples)
    log_p = model.evidence.log_prob(batch.x.flatten(1))
    assert ((trace.elbo() - log_p).abs() < 6 * error).all()


def test_a_closed_rate_of_the_second_layer_agrees_with_its_samples():
    model = Chain(exact=False)
    num_samples = 50_000
    latent = model(batch_of(model, 3), Rng(0, "x"), num_samples).latents[1]
    error = latent.log_ratio().std(0) / math.sqrt(num_samples)
    assert ((latent.rate() + latent.log_ratio().mean(0)).abs() < 6 * error).all()


def test_bounds_of_another_posterior_are_ordered():
    model = Chain(exact=False)
    batch = batch_of(model, 300)
    log_p = model.evidence.log_prob(batch.x.flatten(1)).mean()
    elbo = model(batch, Rng(0, "x"), 200).elbo().mean()
    bounds = [torch.stack([iwae(model, batch, k, seed) for seed in range(200 // k)]).mean() for k in (1, 10, 100)]
    assert bounds[0] < bounds[1] < bounds[2] < log_p
    assert bounds[0].item() == pytest.approx(elbo.item(), abs=0.1)
