"""Multi-sample bounds against the linear-Gaussian model, whose evidence is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.model.test_exact import SHAPE, batch_of, linear_gaussian
from tests.support import scalars_of
from vae_train.batch import Batch
from vae_train.objective.ciwae import CIWAE
from vae_train.objective.iwae import IWAE
from vae_train.objective.miwae import MIWAE
from vae_train.objective.piwae import PIWAE
from vae_train.rng import Rng


@pytest.fixture
def model():
    return linear_gaussian(orthogonal=False)[0]


@pytest.fixture
def trace(model):
    return model(batch_of(linear_gaussian(orthogonal=False)[1], 20), Rng(0, "x"), 12)


def loss(objective, trace):
    return scalars_of(objective, trace, 0)["loss"]


def gradient(value, parameters):
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def followed(objective, trace, model):
    """The gradient that the encoder follows."""
    terms = scalars_of(objective, trace, 0)
    return gradient(terms.get("encoder_loss", terms["loss"]), [model.encoder.gain])


def test_bounds_rise_from_the_elbo_to_the_evidence():
    model, evidence = linear_gaussian(orthogonal=False)
    batch = batch_of(evidence, 500)
    log_p = evidence.log_prob(batch.x.flatten(1)).mean()
    with torch.no_grad():
        elbo = model(batch, Rng(0, "x"), 200).elbo().mean()
        found = [
            torch.stack([-loss(IWAE(k, "standard"), model(batch, Rng(0, "x", k, i), k)) for i in range(200 // k)])
            for k in (5, 50)
        ]
    five, fifty = (values.mean() for values in found)
    assert elbo < five < fifty < log_p
    assert log_p - five > 3 * (log_p - fifty)


@pytest.mark.parametrize("gradient_kind", ["standard", "stl", "dreg"])
def test_the_value_does_not_depend_on_how_the_encoder_is_trained(trace, gradient_kind):
    for make in (IWAE, lambda k, g: MIWAE(k, 3, g), lambda k, g: PIWAE(k, 3, g), lambda k, g: CIWAE(k, 0.3, g)):
        assert torch.allclose(loss(make(12, gradient_kind), trace), loss(make(12, "standard"), trace))


def test_one_group_is_iwae_and_groups_of_one_are_the_elbo(trace):
    assert torch.equal(loss(MIWAE(12, 1, "standard"), trace), loss(IWAE(12, "standard"), trace))
    assert torch.allclose(loss(MIWAE(12, 12, "standard"), trace), -trace.log_weight().mean())


def test_groups_are_disjoint_draws(trace):
    parts = [trace.log_weight()[3 * m : 3 * m + 3].logsumexp(0) - math.log(3) for m in range(4)]
    assert torch.allclose(loss(MIWAE(12, 4, "standard"), trace), -torch.stack(parts).mean())


def test_ciwae_lies_between_the_elbo_and_iwae(trace):
    elbo, iwae = -trace.log_weight().mean(), loss(IWAE(12, "standard"), trace)
    for share in (0.0, 0.25, 1.0):
        assert torch.allclose(loss(CIWAE(12, share, "standard"), trace), share * elbo + (1 - share) * iwae)


@pytest.mark.parametrize("kind", ["standard", "dreg"])
def test_piwae_gives_the_decoder_the_gradient_of_iwae_and_the_encoder_that_of_miwae(trace, model, kind):
    decoder = list(model.decoder.parameters())
    piwae = PIWAE(12, 4, kind)
    expected = gradient(loss(IWAE(12, "standard"), trace), decoder)
    assert torch.allclose(gradient(loss(piwae, trace), decoder), expected)
    mine = followed(piwae, trace, model)
    assert torch.allclose(mine, followed(MIWAE(12, 4, kind), trace, model))
    assert not torch.allclose(mine, followed(IWAE(12, kind), trace, model), rtol=0.01)


@pytest.mark.parametrize("make", [MIWAE, PIWAE])
def test_samples_that_form_no_equal_groups_are_rejected(make):
    with pytest.raises(ValueError, match="num_samples=10 must be a multiple of groups=4"):
        make(10, 4, "standard")


def estimates(model, evidence, objective, repeats, stream):
    """Many independent estimates of the encoder's gradient for one image."""
    x = batch_of(evidence, 1).x.expand(40, *SHAPE)
    found = []
    for i in range(repeats):
        trace = model(Batch(x), Rng(0, stream, i), objective.num_samples)
        found.append(followed(objective, trace, model))
    return torch.stack(found)


def far_apart(a, b):
    """Whether two sets of estimates have different means, in standard errors, the largest over coordinates."""
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    return ((a.mean(0) - b.mean(0)).abs() / error).max().item()


def mismatched():
    """A model whose posterior is not even the best one of its family."""
    model, evidence = linear_gaussian(orthogonal=False)
    with torch.no_grad():
        model.encoder.gain *= 0.8
    return model, evidence


@pytest.fixture(scope="module")
def standard():
    """Estimates of the gradient with respect to the encoder, as it is differentiated without a trick."""
    return {k: estimates(*mismatched(), IWAE(k, "standard"), 400, "standard") for k in (1, 8)}


@pytest.mark.parametrize(("kind", "num_samples"), [("stl", 1), ("dreg", 1), ("dreg", 8)])
def test_gradients_through_the_draws_alone_are_unbiased(standard, kind, num_samples):
    found = estimates(*mismatched(), IWAE(num_samples, kind), 400, kind)
    assert far_apart(found, standard[num_samples]) < 5
    assert far_apart(found, 1.1 * standard[num_samples]) > 5


def test_stl_is_biased_for_several_draws(standard):
    assert far_apart(estimates(*mismatched(), IWAE(8, "stl"), 400, "stl"), standard[8]) > 5


@pytest.mark.parametrize("kind", ["stl", "dreg"])
@pytest.mark.parametrize("num_samples", [1, 5])
def test_at_the_exact_posterior_the_gradient_through_the_draws_vanishes(kind, num_samples):
    model, evidence = linear_gaussian(orthogonal=True)
    found = estimates(model, evidence, IWAE(num_samples, kind), 3, "x")
    assert found.abs().max() < 1e-10
    assert estimates(model, evidence, IWAE(num_samples, "standard"), 3, "x").abs().max() > 1e-3


def test_missing_pixels_do_not_count(model):
    """The bound of MIWAE as Mattei & Frellsen (2019) mean it."""
    batch = batch_of(linear_gaussian(orthogonal=False)[1], 6)
    mask = torch.rand(batch.x.shape, generator=torch.Generator().manual_seed(0)) > 0.4
    trace = model(batch, Rng(0, "x"), 4)

    def bound(x):
        return loss(IWAE(4, "standard"), replace(trace, x=x, mask=mask))

    whole = bound(batch.x)
    assert torch.equal(bound(torch.where(mask, batch.x, 100.0)), whole)
    assert not torch.allclose(bound(torch.where(mask, batch.x + 0.1, batch.x)), whole)
    q, p, px = trace.latents[0].q, trace.latents[0].p, trace.px
    z = trace.latents[0].z
    weight = (px.log_prob_elementwise(batch.x) * mask).flatten(2).sum(-1) + p.log_prob(z) - q.log_prob(z)
    assert torch.allclose(whole, -(weight.logsumexp(0) - math.log(4)).mean())
