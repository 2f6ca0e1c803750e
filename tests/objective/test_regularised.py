"""What objectives add to the ELBO, against values that are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.support import SMALL, binary_batch, build_model, build_objective, compose, scalars_of
from vae_train.distributions.normal import Normal
from vae_train.model.trace import Latent
from vae_train.objective.rae import RAE
from vae_train.objective.spectral import squared_spectral_norm
from vae_train.rng import Rng


def traced(*overrides, size=6, num_samples=2):
    cfg = compose(*SMALL, *overrides)
    model = build_model(cfg, (1, 8, 8), 2)
    return build_objective(cfg), model(binary_batch(size), Rng(0, "x"), num_samples)


def base(trace):
    return trace.distortion().mean() + trace.rate().mean()


def test_all_weights_of_tcvae_at_1_give_the_sampled_elbo():
    for estimator in ("stratified", "weighted"):
        objective, trace = traced("objective=tcvae", f"objective.estimator={estimator}")
        expected = trace.distortion().mean() - trace.latents[0].log_ratio().mean()
        assert torch.allclose(scalars_of(objective, trace, 0)["loss"], expected, rtol=1e-5)


def test_each_part_of_the_rate_has_its_own_weight():
    _, trace = traced()
    parts = ("mutual_information", "total_correlation", "dimension_wise_kl")
    weights = {"objective.alpha": 2.0, "beta": 3.0, "objective.gamma": 5.0}
    objective, _ = traced("objective=tcvae", *(f"{key}={value}" for key, value in weights.items()))
    terms = scalars_of(objective, trace, 0)
    expected = trace.distortion().mean() + sum(w * terms[p] for w, p in zip(weights.values(), parts, strict=True))
    assert torch.allclose(terms["loss"], expected)


def test_tcvae_of_the_whole_data_set_has_the_exact_mutual_information():
    """Posteriors far apart: z tells which of the N images it is of, log N nats."""
    objective, trace = traced("objective=tcvae")
    objective.num_train = 6
    q = Normal(100.0 * torch.arange(6.0).unsqueeze(1).expand(6, 3), torch.zeros(6, 3))
    latent = Latent(q.sample(Rng(0, "z"), 2), q, trace.latents[0].p)
    terms = scalars_of(objective, replace(trace, latents=(latent,)), 0)
    log_6 = torch.tensor(6.0).log()
    assert torch.allclose(terms["mutual_information"], log_6, atol=1e-4)
    assert torch.allclose(terms["total_correlation"], 2 * log_6, atol=1e-3)


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_dip_vae_punishes_a_covariance_that_is_not_the_identity(kind):
    objective, trace = traced(
        "objective=dip_vae", f"objective.kind={kind}", "objective.off_diagonal=2", "objective.diagonal=3"
    )
    q = trace.latents[0].q
    covariance = torch.cov(q.mean.T, correction=0)
    if kind == "ii":
        covariance = covariance + torch.diag(q.variance.mean(0))
    off = covariance - torch.diag(covariance.diagonal())
    expected = 2 * off.square().sum() + 3 * (covariance.diagonal() - 1).square().sum()
    terms = scalars_of(objective, trace, 0)
    assert torch.allclose(terms["penalty"], expected)
    assert torch.allclose(terms["loss"], base(trace) + expected)


def test_factor_vae_adds_the_critics_log_odds():
    objective, trace = traced("objective=factor_vae", "objective.gamma=7")
    terms = scalars_of(objective, trace, 0)
    total = objective.critic(trace.latents[0].z).mean()
    assert torch.allclose(terms["loss"], base(trace) + 7 * total)
    assert torch.allclose(terms["total_correlation"], total)


def test_info_vae_without_alpha_is_the_elbo_and_with_all_of_it_has_no_rate():
    objective, trace = traced("objective=info_vae", "objective.alpha=0", "objective.weight=1")
    assert torch.allclose(scalars_of(objective, trace, 0)["loss"], base(trace))
    objective, trace = traced("objective=info_vae", "objective.alpha=1", "objective.weight=10")
    terms = scalars_of(objective, trace, 0)
    assert torch.allclose(terms["loss"], trace.distortion().mean() + 10 * terms["mmd"])
    with pytest.raises(Exception, match="must be at least 1"):
        traced("objective=info_vae", "objective.alpha=0.2", "objective.weight=0.5")


@pytest.mark.parametrize(("name", "key"), [("wae_mmd", "mmd"), ("sliced_wasserstein", "sliced_wasserstein")])
def test_wasserstein_autoencoders_move_the_aggregate_to_the_prior(name, key):
    objective, trace = traced(f"objective={name}", size=64)
    terms = scalars_of(objective, trace, 0)
    assert torch.allclose(terms["loss"], trace.distortion().mean() + objective.weight * terms[key])
    p = trace.latents[0].p
    like_prior = Latent(p.sample(Rng(0, "z"), 128).view(2, 64, 3), trace.latents[0].q, p)
    far = replace(like_prior, z=like_prior.z + 2)
    near, there = (scalars_of(objective, replace(trace, latents=(x,)))[key] for x in (like_prior, far))
    assert there > 10 * near.abs()


def test_wae_gan_is_deceived_where_the_critic_says_so():
    objective, trace = traced("objective=wae_gan", "objective.weight=3")
    logits = objective.critic(trace.latents[0].z)
    terms = scalars_of(objective, trace, 0)
    expected = torch.nn.functional.softplus(-logits).mean()
    assert torch.allclose(terms["loss"], trace.distortion().mean() + 3 * expected)


def test_the_weight_of_the_vae_gan_balances_the_gradients_at_the_decoders_output():
    objective, trace = traced("objective=vae_gan", "objective.start=0.5", "objective.weight=1")
    terms = scalars_of(objective, trace, 5)
    plain = base(trace)
    (ours,) = torch.autograd.grad(trace.distortion().mean(), trace.px.parameters, retain_graph=True)
    (added,) = torch.autograd.grad(terms["loss"] - plain, trace.px.parameters, retain_graph=True)
    alone = (added / terms["balance"]).norm()
    assert torch.allclose(terms["balance"], ours.norm() / (alone + 1e-4), rtol=1e-3)
    assert added.norm().item() == pytest.approx(ours.norm().item(), rel=0.1)
    assert torch.allclose(scalars_of(objective, trace, 4)["loss"], plain)
    assert scalars_of(objective, trace, torch.tensor(4))["critic_loss"] == 0


@pytest.mark.parametrize("kind", ["hinge", "nonsaturating"])
def test_r1_adds_the_squared_gradient_at_images(kind):
    words = ("objective=vae_gan", "objective.start=0", f"objective.kind={kind}")
    objective, trace = traced(*words)
    without = scalars_of(objective, trace, 0)["critic_loss"]
    objective.r1 = 4.0
    x = trace.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective.critic(x).mean(1).sum(), x)
    expected = without + 2.0 * gradient.square().sum((1, 2, 3)).mean()
    assert torch.allclose(scalars_of(objective, trace, 0)["critic_loss"], expected)


def test_the_critic_of_the_vae_gan_sees_nothing_of_missing_pixels():
    objective, trace = traced("objective=vae_gan", "objective.start=0")
    mask = torch.rand(trace.x.shape) > 0.5
    one = replace(trace, mask=mask)
    other = replace(one, x=torch.where(mask, trace.x, 1 - trace.x))
    assert torch.equal(scalars_of(objective, one, 0)["critic_loss"], scalars_of(objective, other, 0)["critic_loss"])


def test_the_code_of_an_rae_is_short():
    objective, trace = traced(
        "objective=rae", "beta=0.5", "objective.regularizer=none", "model/posterior=deterministic"
    )
    z = trace.latents[0].z
    expected = trace.distortion().mean() + 0.5 * 0.5 * z.square().sum(-1).mean()
    assert torch.allclose(scalars_of(objective, trace, 0)["loss"], expected)


def test_the_weights_of_an_raes_decoder_are_punished():
    words = ("objective=rae", "beta=0", "objective.regularizer=l2", "objective.weight=2")
    objective, trace = traced(*words)
    model = build_model(compose(*SMALL, *words), (1, 8, 8), 2)
    expected = sum(p.square().sum() for name, p in model.decoder.named_parameters() if "weight" in name)
    terms = scalars_of(objective, trace, 0, model)
    assert torch.allclose(terms["penalty"], expected)
    assert torch.allclose(terms["loss"], trace.distortion().mean() + 2 * expected)


@pytest.mark.parametrize("shape", [(7, 5), (3, 20), (4, 2, 3, 3)])
def test_the_power_iteration_finds_thesquared_spectral_norm(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    expected = torch.linalg.matrix_norm(weight.flatten(1), 2).square()
    assert squared_spectral_norm(weight).item() == pytest.approx(expected.item(), rel=0.02)


def test_the_gradient_penalty_estimates_the_norm_of_the_jacobian():
    """Of a linear map, whose Jacobian is its weight."""
    _, trace = traced()
    linear = nn.Linear(3, 64, bias=False).double()
    z = torch.randn(20_000, 1, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    px = Normal(linear(z).view(20_000, 1, 1, 8, 8), torch.zeros((), dtype=torch.float64), 3)
    latent = Latent(z, trace.latents[0].q, trace.latents[0].p)
    linear_trace = replace(trace, x=trace.x[:1], latents=(latent,), px=px)
    terms = scalars_of(RAE(1, 0.0, "gradient_penalty", 1.0), linear_trace)
    assert terms["penalty"].item() == pytest.approx(linear.weight.square().sum().item(), rel=0.1)
    (gradient,) = torch.autograd.grad(terms["penalty"], linear.weight)
    assert torch.allclose(gradient, 2 * linear.weight, rtol=0.1, atol=0.1)
