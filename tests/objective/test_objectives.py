from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support import (
    BINARY,
    SMALL,
    annealed,
    binary_batch,
    build_model,
    build_objective,
    choices,
    combination_errors,
    compose,
    locate,
    run,
    scalars_of,
)
from vae_train.distributions.normal import Normal
from vae_train.model.trace import Latent
from vae_train.objective.elbo import ELBO
from vae_train.objective.schedule import ConstantBeta, LinearBeta
from vae_train.rng import Rng, Rows
from vae_train.runs import compatibility


@pytest.fixture(scope="module")
def trace():
    return build_model(compose(*SMALL), (1, 8, 8), 2)(binary_batch(6), Rng(0, "x"), 3)


def elbo(beta, schedule, **changes):
    knobs = {"capacity": None, "capacity_epochs": 2.0, "free_bits": 0.0, "free_bits_per": "dimension"} | changes
    return ELBO(beta, schedule, 3, steps_per_epoch=10.0, **knobs)


def checked(objective, model):
    """Every scalar is one and finite at every step, and the loss reaches every parameter of the model."""
    for step in (0, 5, torch.tensor(5), 10_000):
        terms = run(model, objective, binary_batch(6), Rng(0, "x"), step)
        assert all(value.shape == () and value.isfinite() for value in terms.values())
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", choices("objective"))
def test_every_objective_returns_scalars_with_a_differentiable_loss(name):
    cfg = compose(*SMALL, f"objective={name}")
    checked(build_objective(cfg), build_model(cfg, (1, 8, 8), 2))


POSTERIORS = {
    "deterministic": "standard_normal",
    "full_covariance": "vamp",
    "planar": "mixture",
    "categorical": "categorical",
    "von_mises_fisher": "uniform_sphere",
}


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("name", choices("objective"))
def test_every_objective_goes_with_every_posterior_that_it_does_not_refuse(name, posterior):
    parts = (f"model/posterior={posterior}", f"model/prior={POSTERIORS[posterior]}", "latent_dim=20")
    cfg = compose(*SMALL[:2], *BINARY, *parts, f"objective={name}")
    found = compatibility.combination_errors(cfg.model, cfg.objective, locate)
    dense = posterior != "deterministic"
    if found:
        assert (
            locate(cfg.objective._target_).needs_density > dense
            or not locate(cfg.model.posterior._target_).is_factorized
        )
        assert "; use " in found[0].message
        return
    objective, model = build_objective(cfg), build_model(cfg, (1, 8, 8), 2)
    terms = run(model, objective, binary_batch(6), Rng(0, "x"), 5)
    assert all(value.shape == () and value.isfinite() for value in terms.values())
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.encoder.parameters())


REFUSED = {
    "elbo": ("model/posterior=deterministic", "the posterior is a point mass"),
    "iwae": ("objective.gradient=stl", "model/posterior=planar", "model/prior=mixture", "objective.gradient=standard"),
    "miwae": ("objective.gradient=dreg", "model/prior=vamp", "this prior also uses the encoder"),
    "piwae": (
        "objective.gradient=dreg",
        "model/posterior=categorical",
        "model/prior=categorical",
        "not differentiable",
    ),
    "free_bits": ("model/posterior=full_covariance", "objective.free_bits_per=layer"),
    "tcvae": ("model/posterior=full_covariance", "model/posterior=gaussian"),
    "dip_vae": ("model/posterior=categorical", "model/prior=categorical", "objective=elbo"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_a_way_out(name):
    *overrides, reason = REFUSED[name]
    cfg = compose(f"objective={name}", *overrides)
    (mistake,) = compatibility.combination_errors(cfg.model, cfg.objective, locate)
    assert reason in mistake.message
    cfg.model.posterior, cfg.model.prior = compose().model.posterior, compose().model.prior
    assert compatibility.combination_errors(cfg.model, cfg.objective, locate) == []


@pytest.mark.parametrize("name", choices("objective"))
def test_what_compares_images_cannot_be_accumulated(name):
    """Halves of a batch, one after the other, give the loss of the batch; where they do not, that is refused."""
    cfg = compose(*SMALL, f"objective={name}")
    objective, model, batch = build_objective(cfg), build_model(cfg, (1, 8, 8), 2), binary_batch(8)
    if compatibility.accumulation_errors(2, cfg.model, cfg.objective, locate):
        return
    whole = run(model, objective, batch, Rng(0, "x"), 5)["loss"]
    halves = []
    for rows in (Rows(0, 3, 8), Rows(3, 8, 8)):
        part = model(batch.part(rows.start, rows.stop), Rng(0, "x").part(rows), objective.num_samples)
        halves.append((rows.stop - rows.start) / 8 * scalars_of(objective, part, 5, model)["loss"])
    assert torch.allclose(sum(halves), whole, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["tcvae", "factor_vae", "dip_vae", "info_vae", "wae_mmd", "vae_gan", "first_stage", "free_bits"]
)
def test_objectives_that_compare_images_say_so(name):
    cfg = compose(f"objective={name}")
    (mistake,) = compatibility.accumulation_errors(2, cfg.model, cfg.objective, locate)
    assert mistake.where == "learner.grad_accumulation=2"


@pytest.mark.parametrize("schedule", choices("objective/beta_schedule"))
@pytest.mark.parametrize("name", annealed())
def test_every_schedule_goes_with_every_objective_that_has_one(name, schedule):
    cfg = compose(*SMALL, f"objective={name}", f"objective/beta_schedule={schedule}")
    checked(build_objective(cfg), build_model(cfg, (1, 8, 8), 2))


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_loss_is_distortion_plus_beta_times_rate(trace, beta):
    terms = scalars_of(elbo(beta, ConstantBeta(10.0)), trace)
    assert torch.allclose(terms["loss"], trace.distortion().mean() + beta * trace.rate().mean())
    assert terms["beta"] == beta


def test_at_beta_1_the_loss_is_the_negative_elbo(trace):
    assert torch.allclose(scalars_of(elbo(1.0, ConstantBeta(10.0)), trace)["loss"], -trace.elbo().mean())


def test_the_schedule_multiplies_beta(trace):
    objective = elbo(4.0, LinearBeta(10.0, warmup=2.0, start=0.0))
    for step, beta in ((0, 0.0), (5, 1.0), (20, 4.0), (99, 4.0)):
        terms = scalars_of(objective, trace, step)
        assert terms["beta"].item() == pytest.approx(beta)
        assert torch.allclose(terms["loss"], trace.distortion().mean() + beta * trace.rate().mean())


def test_an_int_and_a_tensor_step_give_the_same_loss(trace):
    objective = elbo(4.0, LinearBeta(10.0, warmup=2.0, start=0.0))
    assert torch.equal(scalars_of(objective, trace, 7)["loss"], scalars_of(objective, trace, torch.tensor(7))["loss"])


def test_a_capacity_holds_every_image_at_its_rate(trace):
    objective = elbo(4.0, ConstantBeta(10.0), capacity=3.0)
    for step, capacity in ((0, 0.0), (5, 0.75), (20, 3.0), (99, 3.0)):
        terms = scalars_of(objective, trace, step)
        assert terms["capacity"].item() == pytest.approx(capacity)
        expected = trace.distortion().mean() + 4 * (trace.rate() - capacity).abs().mean()
        assert torch.allclose(terms["loss"], expected)


def test_free_bits_per_unit_lift_every_unit_to_their_floor(trace):
    units = trace.latents[0].rate_elementwise().mean(0)
    floor = units.sort().values[1].item()
    assert (units < floor).sum() == 1
    terms = scalars_of(elbo(2.0, ConstantBeta(10.0), free_bits=floor), trace)
    assert torch.allclose(terms["floored_rate"], units.clamp(min=floor).sum())
    assert torch.allclose(terms["loss"], trace.distortion().mean() + 2 * units.clamp(min=floor).sum())


def test_free_bits_per_group_lift_the_sum(trace):
    rate = trace.rate().mean().item()
    for floor in (0.5 * rate, 2 * rate):
        terms = scalars_of(elbo(1.0, ConstantBeta(10.0), free_bits=floor, free_bits_per="layer"), trace)
        assert terms["floored_rate"].item() == pytest.approx(max(floor, rate))


def test_units_below_their_free_bits_have_no_gradient():
    cfg = compose(*SMALL)
    model = build_model(cfg, (1, 8, 8), 2)
    trace = model(binary_batch(6), Rng(0, "x"), 3)
    loss = scalars_of(elbo(1.0, ConstantBeta(10.0), free_bits=1e3), trace)["loss"]
    (with_floor,) = torch.autograd.grad(loss, trace.latents[0].q.log_scale, retain_graph=True)
    (without,) = torch.autograd.grad(trace.distortion().mean(), trace.latents[0].q.log_scale)
    assert torch.allclose(with_floor, without)


class Foreign(Normal):
    """A normal distribution that no closed form knows."""


def test_free_bits_of_units_without_a_closed_rate_come_from_the_draws(trace):
    latent = trace.latents[0]
    other = Latent(latent.z, latent.q, Foreign(torch.zeros(6, 3), torch.ones(6, 3)))
    units = (latent.q.log_prob_elementwise(latent.z) - other.p.log_prob_elementwise(latent.z)).mean((0, 1))
    terms = scalars_of(elbo(1.0, ConstantBeta(10.0), free_bits=0.1), replace(trace, latents=(other,)))
    assert torch.allclose(terms["floored_rate"], units.clamp(min=0.1).sum())


def test_free_bits_of_units_are_refused_where_the_prior_ties_them():
    cfg = compose(*SMALL, "objective=free_bits", "model/prior=mixture")
    (mistake,) = combination_errors(cfg)
    assert mistake.where == "objective=elbo"
    assert "model/prior=standard_normal or objective.free_bits_per=layer" in mistake.message


def test_the_best_scale_of_a_batch_cannot_be_had_in_pieces():
    cfg = compose(*SMALL, "data.binarize=none", "model/likelihood=sigma_vae", "learner.grad_accumulation=2")
    (mistake,) = combination_errors(cfg)
    assert mistake.where == "learner.grad_accumulation=2"
    assert "the model's likelihood depends on the whole batch" in mistake.message


@pytest.mark.parametrize("name", ["vae_gan", "first_stage", "rae"])
def test_gradients_within_the_loss_cannot_be_compiled(name):
    posterior = {"rae": "deterministic"}.get(name, "gaussian")
    cfg = compose(*SMALL, f"objective={name}", f"model/posterior={posterior}", "execution=compile", "device=cpu")
    (error,) = combination_errors(cfg)
    assert error.where == "execution=compile"
    assert error.message == f"objective={name} does not support it; use execution=eager"


def test_importance_weights_need_a_likelihood():
    (mistake,) = combination_errors(compose(*SMALL, "model/likelihood=ms_ssim", "objective=iwae"))
    assert "MS-SSIM: not a likelihood" in mistake.message


def test_a_capacity_and_free_bits_exclude_each_other():
    with pytest.raises(ValueError, match="mutually exclusive"):
        elbo(1.0, ConstantBeta(10.0), capacity=1.0, free_bits=1.0)
