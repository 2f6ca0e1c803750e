"""Posteriors and priors beyond independent normals: what they say of themselves, and that models train with them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from tests.support import (
    SMALL,
    binary_batch,
    build_learner,
    build_model,
    build_objective,
    compose,
    locate,
    run,
    scalars_of,
    update,
)
from tests.training.examples import taken
from tests.training.execution.test_cuda_graph import pair as pair_of_learners
from vae_train.batch import Batch
from vae_train.distributions.kl import kl
from vae_train.distributions.normal import Normal
from vae_train.rng import FixedNoise, NoiseBuffers, Rng
from vae_train.util.errors import UsageError

DENSE = ["full_covariance", "low_rank", "planar", "sylvester", "iaf", "spline"]
POSTERIORS = [*DENSE, "deterministic"]
PRIORS = ["standard_normal", "realnvp", "maf", "spline"]
SHAPE, BATCH = (1, 8, 8), 6

posteriors = pytest.mark.parametrize("posterior", DENSE)
priors = pytest.mark.parametrize("prior", PRIORS)


def settings(posterior="gaussian", prior="standard_normal", *more):
    return compose(*SMALL, f"model/posterior={posterior}", f"model/prior={prior}", *more)


def made(posterior="gaussian", prior="standard_normal", *more):
    return build_model(settings(posterior, prior, *more), SHAPE, 2)


def encoded(posterior, *more):
    model = made(posterior, "standard_normal", *more).double()
    return model.encode(binary_batch(BATCH).x.double())


@posteriors
@priors
def test_a_step_of_training_reaches_all_parameters(posterior, prior):
    cfg = settings(posterior, prior, "execution=eager")
    model = build_model(cfg, SHAPE, 2)
    learner = build_learner(cfg, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    scalars = update(learner, binary_batch(BATCH), 0)
    assert all(math.isfinite(value) for value in scalars.values())
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.isfinite().all(), name
        assert not torch.equal(p, before[name]), name
    again = learner.evaluate(binary_batch(BATCH), 0, 1)
    assert math.isfinite(again["elbo"])


@priors
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_few_latents(posterior, prior, dim):
    if prior == "realnvp" and dim == 1:
        with pytest.raises(UsageError, match="need at least 2 latents"):
            made(posterior, prior, f"latent_dim={dim}")
        return
    model = made(posterior, prior, f"latent_dim={dim}")
    trace = model(binary_batch(BATCH), Rng(0, "x"), 2)
    assert trace.latents[0].z.shape == (2, BATCH, dim)
    if trace.bounded:
        assert trace.elbo().isfinite().all()
    assert model.sample(3, Rng(0, "x")).mean.shape == (3, *SHAPE)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_latent_may_have_several_dimensions(posterior):
    cfg = settings(posterior, "maf")
    cfg.model.latent_shape = [2, 1, 2]
    model = build_model(cfg, SHAPE, 2)
    q = model.encode(binary_batch(BATCH).x)
    z, log_q = q.rsample_and_log_prob(Rng(0, "x"), 3)
    assert z.shape == (3, BATCH, 2, 1, 2)
    assert log_q is None or log_q.shape == (3, BATCH)
    assert model.prior(model.encode).log_prob(z).shape == (3, BATCH)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_what_a_posterior_says_of_itself_is_so(posterior):
    q, kind = encoded(posterior), locate(settings(posterior).model.posterior._target_)
    assert q.has_density == kind.has_density
    assert q.is_factorized == kind.is_factorized
    z, log_q = q.rsample_and_log_prob(Rng(0, "x"), 3)
    if not kind.has_tractable_density:
        with pytest.raises(NotImplementedError if kind.has_density else ValueError):
            q.log_prob(z)
        return
    if log_q is not None:
        assert torch.allclose(q.log_prob(z), log_q, rtol=0, atol=1e-8)
    assert kind.supports_stop_gradient
    assert not q.detach().log_prob(z.detach()).requires_grad


@pytest.mark.parametrize("posterior", ["iaf", "spline", "full_covariance", "low_rank"])
def test_held_posteriors_give_gradients_through_the_draws_alone(posterior):
    """The score E_q[∇ log q] vanishes, so both gradients of the rate have the same mean, and they are not the same."""
    model = made(posterior, "standard_normal", "latent_dim=2").double()
    found = []
    for held in (True, False):
        latent = model(Batch(binary_batch(2).x.double()), Rng(0, "x"), 4000).latents[0]
        loss = -latent.log_ratio(held).mean(0).sum()
        found.append(torch.autograd.grad(loss, model.encoder.parameters()))
    for path, all_ways in zip(*found, strict=True):
        assert not torch.equal(path, all_ways)
        assert torch.allclose(path, all_ways, atol=0.08)


@pytest.mark.parametrize("posterior", DENSE)
def test_the_rate_is_that_of_monte_carlo(posterior):
    """E_q[f] of the samples' own density: E_q[p(z) / q(z)] is 1, and a closed KL is the mean of log q - log p."""
    q = encoded(posterior, "latent_dim=2")
    p = Normal(torch.zeros(2).double(), torch.zeros(2).double())
    z, log_q = q.rsample_and_log_prob(Rng(0, "x"), 10_000)
    ratio = (q.log_prob(z) if log_q is None else log_q) - p.log_prob(z)
    weight = (-ratio).exp()
    assert ((weight.mean(0) - 1).abs() < 5 * weight.std(0) / math.sqrt(len(z)) + 1e-9).all()
    closed = kl(q, p)
    assert (closed is not None) == (posterior in ("full_covariance", "low_rank"))
    if closed is not None:
        assert ((ratio.mean(0) - closed).abs() < 5 * ratio.std(0) / math.sqrt(len(z))).all()


@priors
def test_priors_start_near_the_standard_normal_and_invert(prior):
    model = made("gaussian", prior).double()
    p, standard = model.prior(model.encode), Normal(torch.zeros(3).double(), torch.zeros(3).double())
    z = p.sample(Rng(0, "x"), 500)
    assert (p.log_prob(z) - standard.log_prob(z)).abs().mean() < 0.2
    if prior != "standard_normal":
        noise = p.base.sample(Rng(0, "x"), 500)
        assert torch.allclose(p.flow.inverse(z)[0], noise, rtol=0, atol=1e-9)


@priors
def test_priors_are_shifted_by_a_label(prior):
    model = made("iaf", prior, "model.condition=label")
    batch = binary_batch(BATCH)._replace(y=torch.arange(BATCH)[:, None])
    trace = model(batch, Rng(0, "x"), 2)
    assert trace.elbo().isfinite().all()
    assert model.sample(4, Rng(0, "x")).mean.shape == (4, *SHAPE)


def test_a_point_mass_has_draws_and_no_bound():
    model = made("deterministic")
    trace = model(binary_batch(BATCH), Rng(0, "x"), 2)
    assert not trace.bounded
    assert torch.equal(trace.latents[0].z[0], trace.latents[0].z[1])
    trace.distortion().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(ValueError, match="no density"):
        trace.rate()


def noise_of(model, objective, samples):
    """What one pass asks for."""
    noise = NoiseBuffers(0, "x", "cpu")
    noise.seek(0)
    run(model, objective, binary_batch(BATCH), noise.rng(), 0)
    return [tensor for _, tensor in noise._requests]


def pair(posterior, prior, seed=0):
    cfg = settings(posterior, prior, f"seed={seed}", "objective.num_samples=2")
    return build_model(cfg, SHAPE, 2), build_objective(cfg)


TRANSFORMED = pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        *((q, "standard_normal") for q in DENSE),
        *(("gaussian", p) for p in PRIORS[1:]),
        *((q, "uniform_codes") for q in ("vq", "rvq", "fsq")),
    ],
)


@TRANSFORMED
def test_stacked_models_have_the_gradients_of_each(posterior, prior):
    pairs = [pair(posterior, prior, seed) for seed in range(2)]
    models, objective = [model for model, _ in pairs], pairs[0][1]
    batch, noise = binary_batch(BATCH), noise_of(models[0], objective, 2)

    def loss(parameters, buffers):
        trace = functional_call(models[0], (parameters, buffers), (batch, FixedNoise(noise), 2))
        return scalars_of(objective, trace, 0)["loss"]

    gradients, losses = vmap(grad_and_value(loss))(*stack_module_state(models))
    for i, model in enumerate(models):
        alone = run(model, objective, batch, FixedNoise(noise), 0)["loss"]
        alone.backward()
        assert torch.allclose(losses[i], alone, rtol=1e-5)
        for name, parameter in model.named_parameters():
            assert torch.allclose(gradients[name][i], parameter.grad, atol=1e-4, rtol=1e-4), name


@pytest.mark.slow
@TRANSFORMED
def test_model_and_objective_compile_to_one_graph(posterior, prior):
    model, objective = pair(posterior, prior)
    batch, noise = binary_batch(BATCH), noise_of(model, objective, 2)

    def loss(x):
        return run(model, objective, type(batch)(x), FixedNoise(noise), 0)["loss"]

    torch.compiler.reset()
    eager, fast = loss(batch.x), torch.compile(loss, fullgraph=True)(batch.x)
    expected = torch.autograd.grad(eager, list(model.parameters()))
    found = torch.autograd.grad(fast, list(model.parameters()))
    assert fast.item() == pytest.approx(eager.item(), rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(expected, found, strict=True))


@pytest.mark.slow
@TRANSFORMED
def test_captured_steps_are_the_same_steps(posterior, prior):
    words = (f"model/posterior={posterior}", f"model/prior={prior}", "learner.ema=0.9")
    (_, eager), (_, captured, _) = pair_of_learners(*words)
    assert torch.equal(taken(eager, 15), taken(captured, 15))


@TRANSFORMED
def test_models_follow_networks_under_bfloat16(posterior, prior):
    cfg = settings(posterior, prior, "precision=bfloat16", "execution=eager")
    learner = build_learner(cfg, build_model(cfg, SHAPE, 2))
    scalars = update(learner, binary_batch(BATCH), 0)
    assert all(math.isfinite(value) for value in scalars.values())
