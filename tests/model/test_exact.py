"""A linear-Gaussian model, whose evidence is known: p(z) = N(0, I), p(x | z) = N(W z + b, sigma² I)."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from vae_train.batch import Batch
from vae_train.model.base import Network
from vae_train.model.likelihood.gaussian import Gaussian as GaussianPixels
from vae_train.model.posterior.gaussian import Gaussian as GaussianPosterior
from vae_train.model.prior.standard_normal import StandardNormal
from vae_train.model.vae import VAE
from vae_train.rng import Rng

SHAPE, DIM, PIXELS, SIGMA = (1, 2, 4), 3, 8, 0.5


class Decoder(Network):
    """W z + b."""

    def __init__(self, in_shape, out_shape, weight, bias):
        super().__init__(in_shape, out_shape)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, h):
        return (h @ self.weight.T + self.bias).view(-1, *self.out_shape)


class Encoder(Network):
    """The posterior's mean; variances 1 / diag(precision), which minimise the KL among diagonal ones."""

    def __init__(self, in_shape, out_shape, weight, bias):
        super().__init__(in_shape, out_shape)
        precision = torch.eye(DIM).double() + weight.T @ weight / SIGMA**2
        self.gain = nn.Parameter(torch.linalg.solve(precision, weight.T) / SIGMA**2)
        self.bias, self.log_variance = bias, -precision.diagonal().log()

    def forward(self, h):
        mean = (h.flatten(1) - self.bias) @ self.gain.T
        return torch.cat([mean, self.log_variance.expand_as(mean)], 1)


def linear_gaussian(orthogonal):
    """A model whose posterior is exact where the columns of W are orthogonal, and mean-field otherwise."""
    source = torch.Generator().manual_seed(3)
    weight = torch.randn(PIXELS, DIM, generator=source, dtype=torch.float64)
    if orthogonal:
        weight = torch.linalg.qr(weight).Q * torch.tensor([0.5, 1.0, 2.0]).double()
    bias = torch.randn(PIXELS, generator=source, dtype=torch.float64)
    model = VAE(
        SHAPE,
        None,
        [DIM],
        encoder=partial(Encoder, weight=weight, bias=bias),
        decoder=partial(Decoder, weight=weight, bias=bias),
        posterior=partial(GaussianPosterior, log_variance=None),
        prior=StandardNormal,
        likelihood=partial(GaussianPixels, scale=SIGMA, scale_mode="fixed"),
        condition=None,
        output_bias="init",
        factor_sizes=(),
    ).double()
    model.likelihood.scale.raw.fill_(math.log(SIGMA))
    evidence = torch.distributions.MultivariateNormal(
        bias, weight @ weight.T + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
    )
    return model, evidence


def batch_of(evidence, size):
    torch.manual_seed(0)
    return Batch(evidence.sample((size,)).view(size, *SHAPE))


def bound(trace):
    return trace.log_weight().logsumexp(0) - math.log(len(trace.log_weight()))


@pytest.mark.parametrize("num_samples", [1, 5])
def test_every_bound_of_the_exact_posterior_is_the_evidence(num_samples):
    model, evidence = linear_gaussian(orthogonal=True)
    batch = batch_of(evidence, 50)
    log_p = evidence.log_prob(batch.x.flatten(1))
    trace = model(batch, Rng(0, "x"), num_samples)
    assert trace.log_weight().dtype == torch.float64
    assert torch.allclose(bound(trace), log_p, rtol=0, atol=1e-10)
    assert torch.allclose(trace.log_weight(), log_p.expand(num_samples, 50), rtol=0, atol=1e-10)


def test_the_elbo_of_the_exact_posterior_is_the_evidence_in_expectation():
    model, evidence = linear_gaussian(orthogonal=True)
    batch = batch_of(evidence, 1)
    trace = model(batch, Rng(0, "x"), 100_000)
    error = trace.log_likelihood().std() / math.sqrt(100_000)
    assert abs(trace.elbo() - evidence.log_prob(batch.x.flatten(1))) < 5 * error


def test_the_elbo_with_a_sampled_rate_is_the_evidence_of_the_exact_posterior():
    model, evidence = linear_gaussian(orthogonal=True)
    batch = batch_of(evidence, 50)
    trace = model(batch, Rng(0, "x"), 5)
    elbo = trace.log_likelihood().mean(0) + trace.latents[0].log_ratio().mean(0)
    assert torch.allclose(elbo, evidence.log_prob(batch.x.flatten(1)), rtol=0, atol=1e-10)


def test_bounds_of_a_mean_field_posterior_rise_with_the_number_of_samples_to_the_evidence():
    model, evidence = linear_gaussian(orthogonal=False)
    batch = batch_of(evidence, 500)
    log_p = evidence.log_prob(batch.x.flatten(1)).mean()
    with torch.no_grad():
        elbo = model(batch, Rng(0, "x"), 200).elbo().mean()
        gaps = [
            (log_p - torch.stack([bound(model(batch, Rng(0, "x", k, i), k)).mean() for i in range(200 // k)]).mean())
            for k in (1, 10, 100)
        ]
    assert log_p - elbo > gaps[1] > 5 * gaps[2] > 0
    assert gaps[0] > 3 * gaps[1]
    assert gaps[0].item() == pytest.approx((log_p - elbo).item(), abs=0.05)


def test_closed_and_sampled_rates_agree():
    model, evidence = linear_gaussian(orthogonal=False)
    trace = model(batch_of(evidence, 4), Rng(0, "x"), 50_000)
    (latent,) = trace.latents
    error = latent.log_ratio().std(0) / math.sqrt(50_000)
    assert ((trace.rate() + latent.log_ratio().mean(0)).abs() < 5 * error).all()
