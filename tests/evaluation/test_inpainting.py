"""Hidden values are drawn from p(missing | seen), which is known for the linear-Gaussian model of `test_exact`.

A joint normal distribution of x has a normal conditional distribution of the hidden values given the seen ones, with
mean m_h + S_hs S_ss⁻¹ (x_s - m_s) and covariance S_hh - S_hs S_ss⁻¹ S_sh.
"""

from __future__ import annotations

import math

import pytest
import torch

from tests.model.test_exact import DIM, PIXELS, SHAPE, SIGMA, Encoder, linear_gaussian
from tests.support import BINARY, InMemory, build_model, choices, compose
from vae_train.evaluation.inpainting import Completions, MaskedImages, inpaint
from vae_train.model.base import SingleLatent
from vae_train.rng import Rng, generator

SEEN = torch.tensor([True, False, True, True, False, True, False, True])
NUM = 1_000


def masked(x: torch.Tensor, mask: torch.Tensor, y: torch.Tensor | None = None) -> MaskedImages:
    return MaskedImages(InMemory(x, y), lambda index, images: mask.expand(len(x), *mask.shape[-3:])[index])


def completed(model: SingleLatent, images: MaskedImages, **options) -> Completions:
    parts = list(inpaint(model, images, **options))
    x, efficiency = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("x", "efficiency"))
    return Completions(0, x, None, efficiency)


class SeenEncoder(Encoder):
    """The posterior given the seen pixels, with the variances of its marginals, twice as large."""

    def __init__(self, in_shape, out_shape, weight, bias):
        super().__init__(in_shape, out_shape, weight, bias)
        seen = weight * SEEN[:, None]
        covariance = torch.linalg.inv(torch.eye(DIM).double() + seen.T @ seen / SIGMA**2)
        self.gain = torch.nn.Parameter(covariance @ seen.T / SIGMA**2)
        self.log_variance = (2 * covariance.diagonal()).log()


class WrongEncoder(Encoder):
    """A posterior that is too wide and too close to 0, so that a chain has to reject."""

    def __init__(self, in_shape, out_shape, weight, bias):
        super().__init__(in_shape, out_shape, weight, bias)
        self.gain = torch.nn.Parameter(0.9 * self.gain.detach())
        self.log_variance = self.log_variance + math.log(2)


def model_of(kind: str):
    """A linear-Gaussian model with an exact posterior, a wrong one, or one of the seen pixels."""
    model, evidence = linear_gaussian(orthogonal=kind == "exact")
    if kind != "exact":
        weight, bias = (p.detach() for p in (model.decoder.weight, model.decoder.bias))
        encoder = WrongEncoder if kind == "wrong" else SeenEncoder
        model.encoder = encoder(SHAPE, model.posterior.parameter_shape, weight, bias).double()
    return model, evidence


def conditional(evidence, x):
    """Mean and covariance of the hidden pixels, `(3,)` and `(3, 3)`, given the others of `x`, `(PIXELS,)`."""
    mean, covariance = evidence.mean, evidence.covariance_matrix
    gain = torch.linalg.solve(covariance[SEEN][:, SEEN], covariance[SEEN][:, ~SEEN]).T
    rest = covariance[~SEEN][:, ~SEEN] - gain @ covariance[SEEN][:, ~SEEN]
    return mean[~SEEN] + gain @ (x - mean)[SEEN], rest


@pytest.mark.parametrize(
    ("kind", "method", "steps"), [("exact", "gibbs", 40), ("wrong", "gibbs", 150), ("seen", "importance", 100)]
)
def test_completions_have_the_moments_of_the_conditional_distribution(kind, method, steps):
    model, evidence = model_of(kind)
    one = evidence.mean + 2 * SIGMA * torch.randn(PIXELS, generator=generator(1, "x"), dtype=torch.float64)
    images = masked(one.view(1, *SHAPE).expand(NUM, -1, -1, -1), SEEN.view(SHAPE))
    x = completed(model, images, method=method, steps=steps).x[0].flatten(1)
    mean, covariance = conditional(evidence, one)
    variance = covariance.diagonal()
    hidden = x[:, ~SEEN]
    assert torch.equal(x[:, SEEN], one[SEEN].expand(NUM, -1))
    # Completions are independent, so the number of images is the effective number of samples.
    assert ((hidden.mean(0) - mean).abs() < 4 * (variance / NUM).sqrt()).all()
    assert ((hidden.std(0) / variance.sqrt() - 1).abs() < 4 / math.sqrt(2 * NUM)).all()
    correlation = torch.corrcoef(hidden.T) - covariance / (variance[:, None] * variance).sqrt()
    assert (correlation.abs() < 4 / math.sqrt(NUM)).all()


def small(*choices: str, shape=(1, 8, 8), levels=2) -> SingleLatent:
    model = build_model(compose("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", *choices), shape, levels)
    assert isinstance(model, SingleLatent)
    return model.eval()


def bits(num: int, shape=(1, 8, 8)) -> torch.Tensor:
    return torch.rand(num, *shape, generator=generator(0, "bits")).round()


@pytest.mark.parametrize("method", ["gibbs", "importance"])
def test_completions_are_a_function_of_seed_image_and_number(method):
    model, mask = small(*BINARY), torch.rand(20, 1, 8, 8, generator=generator(0, "mask")) < 0.5
    pixels = bits(20)
    images = masked(pixels, mask)
    x = completed(model, images, method=method, completions=3, steps=12, seed=1).x
    assert x.shape == (3, 20, 1, 8, 8)
    assert torch.equal(torch.where(mask, x, pixels), pixels.expand_as(x))
    again = completed(model, images, method=method, completions=3, steps=12, seed=1, batch_size=3).x
    assert torch.allclose(again, x, atol=1e-5)
    fewer = completed(model, masked(pixels[:13], mask[:13]), method=method, completions=2, steps=12, seed=1).x
    assert torch.allclose(fewer, x[:2, :13], atol=1e-5)
    other = completed(model, images, method=method, completions=3, steps=12, seed=2).x
    pairs = [(x, other), *((x[i], x[j]) for i, j in ((0, 1), (0, 2), (1, 2)))]
    assert all((a != b).flatten(-3).any(-1).all() for a, b in pairs)


@pytest.mark.parametrize("method", ["gibbs", "importance"])
def test_images_of_a_batch_do_not_mix(method):
    model, evidence = model_of("exact" if method == "gibbs" else "seen")
    images = torch.stack([evidence.mean, evidence.mean + 6]).view(2, *SHAPE).double().repeat(100, 1, 1, 1)
    hidden = completed(model, masked(images, SEEN.view(SHAPE)), method=method, steps=20).x[0].flatten(1)[:, ~SEEN]
    for row in (0, 1):
        mean, covariance = conditional(evidence, images[row].flatten())
        error = (covariance.diagonal() / 100).sqrt()
        assert ((hidden[row::2].mean(0) - mean).abs() < 5 * error).all()


@pytest.mark.parametrize("method", ["gibbs", "importance"])
@pytest.mark.parametrize(
    ("likelihood", "levels", "factor"), [("bernoulli", 2, 3), ("categorical", 5, 3), ("discretized_logistic", 5, 1)]
)
def test_completions_of_a_finite_latent_have_the_enumerated_expectation(likelihood, levels, factor, method):
    parts = ("model/posterior=categorical", "model/prior=categorical", f"model/likelihood={likelihood}", "latent_dim=5")
    model = small(*parts, shape=(1, 2, 4), levels=levels)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(factor)
    mask = SEEN.view(1, 2, 4)
    x = (torch.rand(1, 1, 2, 4, generator=generator(2, "x")) * (levels - 1)).round() / (levels - 1)
    z = torch.eye(5)
    px = model.decode(z)
    joint = px.log_prob(x, mask) + model.prior(model.encode).log_prob(z)
    expected = (joint.softmax(0)[:, None] * px.mean.flatten(1)).sum(0)[~SEEN]
    drawn = completed(model, masked(x.expand(NUM, -1, -1, -1), mask), method=method, steps=30).x[0].flatten(1)[:, ~SEEN]
    assert ((drawn.mean(0) - expected).abs() < 4 * drawn.std(0) / math.sqrt(NUM) + 1e-6).all()
    assert joint.softmax(0).max() < 0.9  # several z explain what is seen


POINTS = ("deterministic", "fsq", "rvq", "vq")
"""Posteriors without a distribution of z."""


@pytest.mark.parametrize("method", ["gibbs", "importance"])
@pytest.mark.parametrize("posterior", [p for p in choices("model/posterior") if p not in POINTS])
def test_every_posterior_with_a_density_completes_images(posterior, method):
    model = small(*BINARY, f"model/posterior={posterior}", "latent_dim=15")
    mask = torch.arange(8).view(1, 1, 1, 8) < 4
    result = completed(model, masked(bits(3), mask), method=method, completions=2, steps=6)
    assert set(result.x.unique().tolist()) <= {0.0, 1.0}
    assert result.efficiency.mean() > 0
    assert ((result.efficiency >= 0) & (result.efficiency <= 1.0001)).all()


@pytest.mark.parametrize(
    "likelihood", [name for name in choices("model/likelihood") if name not in ("bernoulli", "ms_ssim")]
)
def test_pixels_with_levels_keep_their_levels(likelihood):
    model, mask = small(f"model/likelihood={likelihood}", shape=(3, 8, 8), levels=17), bits(4) > 0
    x = (16 * torch.rand(4, 3, 8, 8, generator=generator(0, "x"))).round() / 16
    filled = completed(model, masked(x, mask), method="gibbs", steps=6).x[0]
    assert torch.equal(torch.where(mask, filled, 0.0), torch.where(mask, x, 0.0))
    assert torch.equal((filled * 16).round() / 16, filled)
    assert 0 <= filled.min() <= filled.max() <= 1


def test_a_condition_determines_completions():
    model = small(*BINARY, "model.condition=label")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    images = masked(bits(2).repeat(20, 1, 1, 1), torch.zeros(1, 8, 8, dtype=torch.bool), torch.tensor([[3], [7]] * 20))
    x = completed(model, images, method="gibbs", steps=20).x[0].flatten(1)
    means = [
        model.sample(2000, Rng(0, "x"), y=torch.full((2000, 1), y)).mean.mean(0).flatten()
        for row, y in ((0, 3), (1, 7))
    ]
    for row in (0, 1):
        own, other = ((x[row::2].mean(0) - means[i]).square().sum() for i in (row, 1 - row))
        assert own < other


def test_a_model_without_a_distribution_of_missing_values_is_an_error():
    images = masked(bits(2), torch.ones(1, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="the posterior is a point mass"):
        completed(small(*BINARY, "model/posterior=deterministic", "objective=rae"), images, method="gibbs")
    with pytest.raises(ValueError, match="the posterior is a point mass on codes"):
        completed(small(*BINARY, "model/posterior=vq"), images, method="importance")
    with pytest.raises(ValueError, match="no likelihood of single values"):
        completed(small("model/likelihood=ms_ssim", levels=256), images, method="gibbs")
