"""Every prior is a distribution, goes with every posterior that it does not refuse, and learns what it says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from omegaconf import DictConfig
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from tests.support import (
    BINARY,
    InMemory,
    binary_batch,
    build_model,
    build_objective,
    choices,
    compose,
    loaded,
    locate,
    run,
    scalars_of,
)
from vae_train.batch import Batch
from vae_train.distributions.kl import kl
from vae_train.distributions.mixture import Mixture
from vae_train.distributions.normal import Normal
from vae_train.rng import FixedNoise, NoiseBuffers, Rng
from vae_train.runs.compatibility import combination_errors
from vae_train.util.errors import UsageError

SHAPE, DIM = (1, 8, 8), 10
SMALL = ("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", *BINARY)
PRIORS, POSTERIORS = choices("model/prior"), choices("model/posterior")
OURS = {
    "real": ["standard_normal", "diagonal", "mixture", "vamp", "exemplar"],
    "sphere": ["uniform_sphere"],
    "categorical": ["categorical"],
    "joint": ["joint"],
    "codes": ["uniform_codes"],
}
"""Priors by the domain that they live in."""
POSTERIOR = {
    "real": "gaussian",
    "sphere": "von_mises_fisher",
    "categorical": "categorical",
    "joint": "joint",
    "codes": "fsq",
}
PAIRS = [
    (POSTERIOR[support], prior)
    for support, priors in OURS.items()
    for prior in dict.fromkeys([*priors, *(["vamp"] if support != "codes" else [])])
]

CLOSED = ("standard_normal", "diagonal", "uniform_sphere", "categorical", "joint", "uniform_codes")
"""Priors whose rate beside the posterior of their domain has a closed form."""


@cache
def part(kind: str, name: str) -> DictConfig:
    return compose(f"model/{kind}={name}").model[kind]


def composed(posterior: str, prior: str, *overrides: str) -> DictConfig:
    """A small configuration with both, put together without Hydra since there are many."""
    cfg = compose(*SMALL, *overrides)
    cfg.model.posterior, cfg.model.prior = part("posterior", posterior).copy(), part("prior", prior).copy()
    return cfg


def built(posterior: str, prior: str, *overrides: str, **knobs):
    cfg = composed(posterior, prior, *overrides)
    for name, value in knobs.items():
        cfg.model.prior[name] = value
    return build_model(cfg, SHAPE, 2), build_objective(cfg)


def refusal(posterior: str, prior: str) -> str | None:
    errors = combination_errors(composed(posterior, prior).model, compose().objective, locate)
    return next((error.message for error in errors if error.where.startswith("model/prior=")), None)


def density(model) -> Mixture | Normal:
    return model.prior_of()


def numbers_asked(ask: Callable[[Rng], object], seed: int) -> list[torch.Tensor]:
    """The noise that something asks for."""
    noise = NoiseBuffers(seed, "x", "cpu")
    noise.seek(0)
    ask(noise.rng())
    return [numbers for _, numbers in noise._requests]


def images(count: int = 40) -> InMemory:
    return InMemory(binary_batch(count, SHAPE).x)


@pytest.mark.parametrize("prior", OURS["real"])
def test_the_density_of_a_real_prior_integrates_to_1(prior):
    model = built("gaussian", prior, "latent_dim=2")[0].double()
    for parameter in model.prior.parameters():
        if parameter.shape != (500, *SHAPE):
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    line = torch.linspace(-12, 12, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    total = density(model).log_prob(grid).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("prior", ["uniform_sphere", "vamp"])
def test_the_density_of_a_prior_on_the_circle_integrates_to_1(prior):
    model = built("von_mises_fisher", prior, "latent_dim=2")[0].double()
    angle = torch.arange(2000, dtype=torch.float64) * (2 * math.pi / 2000)
    total = density(model).log_prob(torch.stack([angle.cos(), angle.sin()], -1)).exp().sum() * (2 * math.pi / 2000)
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("prior", ["categorical", "vamp"])
def test_the_masses_of_a_categorical_prior_sum_to_1(prior):
    model = built("categorical", prior)[0].double()
    if prior == "categorical":
        model.prior.logits = torch.nn.Parameter(torch.randn(DIM).double())
    rows = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    every = torch.eye(5, dtype=torch.float64)[rows].flatten(-2)
    assert density(model).log_prob(every).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("prior", ["joint", "vamp"])
def test_a_joint_prior_integrates_and_sums_to_1(prior):
    model = built("joint", prior, "latent_dim=6")[0].double()
    line = torch.linspace(-12, 12, 1001, dtype=torch.float64)
    each = torch.eye(5, dtype=torch.float64)
    z = torch.cat([line[:, None, None].expand(-1, 5, -1), each.expand(1001, -1, -1)], -1)
    total = density(model).log_prob(z).exp().sum() * (line[1] - line[0])
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.slow  # tests/test_combinations.py trains every pair too, among other parts
@pytest.mark.parametrize(("posterior", "prior"), itertools.product(POSTERIORS, PRIORS))
def test_every_pair_trains_or_is_refused_with_a_way_out(posterior, prior):
    why = refusal(posterior, prior)
    if why:
        assert "; use model/" in why
        return
    if not locate(part("posterior", posterior)["_target_"]).has_density:
        return  # the ELBO refuses it
    model, objective = built(posterior, prior)
    model.initialize(images(600))
    batch = binary_batch(6)
    loss = run(model, objective, batch, Rng(0, "x"), 0, 2)["loss"]
    loss.backward()
    assert loss.isfinite()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    with torch.no_grad():
        trace = model(batch, Rng(0, "x"), 2)
        assert trace.elbo().isfinite().all()
        z = density(model).sample(Rng(1, "x"), 5)
        assert z.shape == (5, DIM)
        assert model.sample(5, Rng(1, "x")).mean.shape == (5, *SHAPE)


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_draws_of_a_prior_have_a_finite_density(posterior, prior):
    found = density(built(posterior, prior)[0])
    with torch.no_grad():
        assert found.log_prob(found.sample(Rng(0, "x"), 200)).isfinite().all()


@pytest.mark.parametrize(("posterior", "prior"), [pair for pair in PAIRS if pair[1] in CLOSED])
def test_a_closed_rate_equals_its_estimate_from_draws(posterior, prior):
    model = built(posterior, prior)[0].double()
    x = binary_batch(3).x.double()
    with torch.no_grad():
        latent = model(Batch(x), Rng(0, "x"), 20_000).latents[0]
        assert kl(latent.q, latent.p) is not None
        ratio = -latent.log_ratio()
        assert ((ratio.mean(0) - latent.rate()).abs() <= 5 * ratio.std(0) / math.sqrt(len(ratio)) + 1e-9).all()


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_stacked_models_have_the_gradients_of_each(posterior, prior):
    knobs = {"components": 4} if prior in ("vamp", "mixture", "exemplar") else {}
    _, objective = built(posterior, prior, **knobs)
    models = [built(posterior, prior, f"seed={seed}", **knobs)[0] for seed in range(2)]
    batch = binary_batch(4)
    asked = [numbers_asked(lambda rng: models[0](batch, rng, 2), seed) for seed in range(2)]

    def loss(parameters, buffers, *noise):
        trace = functional_call(models[0], (parameters, buffers), (batch, FixedNoise(list(noise)), 2))
        return scalars_of(objective, trace, 0)["loss"]

    noise = [torch.stack(pair) for pair in zip(*asked, strict=True)]
    gradients, losses = vmap(grad_and_value(loss))(*stack_module_state(models), *noise)
    for i, model in enumerate(models):
        alone = run(model, objective, batch, FixedNoise(asked[i]), 0, 2)["loss"]
        alone.backward()
        assert torch.allclose(losses[i], alone, rtol=1e-5)
        for name, parameter in model.named_parameters():
            assert torch.allclose(gradients[name][i], parameter.grad, atol=1e-5, rtol=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_model_and_objective_compile_to_one_graph(posterior, prior):
    model, objective = built(posterior, prior)
    batch = binary_batch(4)
    noise = numbers_asked(lambda rng: model(batch, rng, 2), 0)

    def loss(x, *noise):
        return run(model, objective, Batch(x), FixedNoise(list(noise)), 0, 2)["loss"]

    torch.compiler.reset()
    eager, fast = loss(batch.x, *noise), torch.compile(loss, fullgraph=True)(batch.x, *noise)
    parameters = list(model.parameters())
    assert fast.item() == pytest.approx(eager.item(), rel=1e-5)
    expected, found = torch.autograd.grad(eager, parameters), torch.autograd.grad(fast, parameters)
    assert all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_bfloat16_networks_leave_log_probabilities_in_float32(posterior, prior):
    model, objective = built(posterior, prior)
    batch = binary_batch(6)
    with torch.autocast("cpu", torch.bfloat16):
        trace = model(batch, Rng(0, "x"), 2)
        loss = scalars_of(objective, trace, 0)["loss"]
    assert trace.rate().dtype == torch.float32
    assert loss.item() == pytest.approx(run(model, objective, batch, Rng(0, "x"), 0, 2)["loss"].item(), rel=0.02)


def test_a_mixture_of_one_is_the_diagonal_prior():
    mixture, diagonal = built("gaussian", "mixture", components=1)[0], built("gaussian", "diagonal")[0]
    diagonal.prior.mean.data.copy_(mixture.prior.means[0])
    scale = torch.randn(DIM)
    diagonal.prior.log_scale.data.copy_(scale)
    mixture.prior.log_scales.data[0].copy_(scale)
    one, other = density(mixture), density(diagonal)
    z = other.sample(Rng(0, "x"), 50)
    assert torch.allclose(one.log_prob(z), other.log_prob(z), rtol=1e-5)
    assert torch.allclose(one.mean, other.mean)


def test_a_mixture_starts_as_spread_as_it_is_told():
    means = built("gaussian", "mixture", components=400, std=3.0)[0].prior.means
    assert means.std().item() == pytest.approx(3, rel=0.05)


def test_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs():
    model = built("gaussian", "vamp", components=7)[0].double()
    z = torch.randn(5, DIM, dtype=torch.float64)
    each = torch.stack([model.encode(u[None]).log_prob(z) for u in model.prior.pseudo_inputs])
    assert torch.allclose(density(model).log_prob(z), each.logsumexp(0) - math.log(7))


def test_vamp_pseudo_inputs_start_as_training_images_and_learn():
    model, objective = built("gaussian", "vamp", components=7)
    model.initialize(images())
    started = model.prior.pseudo_inputs.detach().clone()
    expected = binary_batch(40).x[torch.tensor([0, 6, 13, 20, 26, 32, 39])]
    assert torch.equal(started, expected)
    trace = model(binary_batch(6), Rng(0, "x"))
    latent = trace.latents[0]
    gradient, *encoder = torch.autograd.grad(
        latent.p.log_prob(latent.z.detach()).sum(),
        [model.prior.pseudo_inputs, *model.encoder.parameters()],
        retain_graph=True,
    )
    assert (gradient.flatten(1).abs().sum(-1) > 0).all()
    assert all((g != 0).any() for g in encoder), "the prior trains the encoder too"
    scalars_of(objective, trace, 0)["loss"].backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not torch.equal(model.prior.pseudo_inputs, started)


def test_vamp_pseudo_inputs_that_start_from_noise_are_spread_over_the_range_of_the_pixels():
    prior = built("gaussian", "vamp", start="random", components=20)[0].prior
    prior.initialize(InMemory(4 * binary_batch(40, SHAPE).x - 1))
    assert -1 <= prior.pseudo_inputs.min() < -0.99
    assert 2.99 < prior.pseudo_inputs.max() <= 3
    assert prior.pseudo_inputs.mean().item() == pytest.approx(1, abs=0.15)


def test_vamp_pseudo_inputs_are_cut_off_at_the_range_of_the_pixels():
    model = built("gaussian", "vamp", components=2)[0]
    model.prior.pseudo_inputs.data.fill_(3.0)
    ones = model.encode(torch.ones(1, *SHAPE))
    assert torch.allclose(density(model).components.loc, ones.loc.expand(2, -1))


def test_exemplars_are_training_images_around_whose_codes_it_lies():
    model = built("gaussian", "exemplar", components=7)[0]
    model.initialize(images())
    model.prior.log_scale.data.fill_(-1.0)
    found = density(model)
    codes = model.encode(binary_batch(40).x[torch.tensor([0, 6, 13, 20, 26, 32, 39])]).mean
    assert torch.allclose(found.components.loc, codes)
    z = torch.randn(5, DIM)
    each = torch.distributions.Normal(codes, math.exp(-1.0)).log_prob(z[:, None]).sum(-1)
    assert torch.allclose(found.log_prob(z), each.logsumexp(-1) - math.log(7), rtol=1e-5)


@pytest.mark.parametrize("prior", ["vamp", "exemplar"])
def test_more_images_than_there_are_is_a_error(prior):
    model = built("gaussian", prior, components=41)[0]
    with pytest.raises(UsageError, match="41 components, but there are only 40 training images"):
        model.initialize(images())


@pytest.mark.parametrize("prior", ["vamp", "exemplar"])
def test_what_came_from_images_is_saved(prior):
    model, other = (built("gaussian", prior, f"seed={seed}", components=7)[0] for seed in (0, 1))
    model.initialize(images())
    other.load_state_dict(model.state_dict())
    z = torch.randn(5, DIM)
    assert torch.equal(density(model).log_prob(z), density(other).log_prob(z))


def test_learned_categories_learn_and_others_are_equal():
    fixed, learned = (built("categorical", "categorical", learned=flag)[0].prior for flag in (False, True))
    assert list(fixed.parameters()) == []
    assert [name for name, _ in learned.named_parameters()] == ["logits"]
    assert torch.allclose(fixed(lambda x: x).mean, torch.full((DIM,), 0.2))


@pytest.mark.parametrize(
    ("posterior", "settings", "why"),
    [
        ("categorical", ["latent_dim=7"], "for instance 10, not 7"),
        ("joint", ["latent_dim=5"], "for instance 15, not 5"),
        ("von_mises_fisher", ["latent_dim=1"], "at least 2 elements"),
    ],
)
def test_a_posterior_says_which_latent_dim_it_takes(posterior, settings, why):
    with pytest.raises(UsageError, match=why):
        built(posterior, posterior if posterior != "von_mises_fisher" else "uniform_sphere", *settings)


def test_a_prior_has_the_categories_of_the_posterior():
    for name, given, expected in (("categorical", "2", 2), ("joint", "[3,2]", [3, 2])):
        cfg = compose(*BINARY, f"model/posterior={name}", f"model/prior={name}", f"model.posterior.categories={given}")
        assert cfg.model.prior.categories == expected


@pytest.mark.parametrize(
    ("posterior", "prior", "way_out"),
    [
        ("gaussian", "uniform_sphere", "model/prior=standard_normal"),
        ("von_mises_fisher", "standard_normal", "model/prior=uniform_sphere"),
        ("categorical", "mixture", "model/prior=categorical"),
        ("joint", "categorical", "model/prior=joint"),
        ("von_mises_fisher", "exemplar", "model/prior=uniform_sphere"),
        ("gaussian", "uniform_codes", "model/prior=standard_normal"),
        ("fsq", "vamp", "model/prior=uniform_codes"),
    ],
)
def test_a_prior_that_lives_elsewhere_is_refused(posterior, prior, way_out):
    assert way_out in refusal(posterior, prior)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_vamp_refuses_posteriors_that_cannot_score_what_others_drew(posterior):
    target = locate(part("posterior", posterior)["_target_"])
    scores_any = target.has_density and target.has_tractable_density and not target.is_quantized
    assert bool(refusal(posterior, "vamp")) == (not scores_any)


def test_vamp_starts_from_the_digits_in_a_real_run():
    cfg = compose(*SMALL, "data=digits", "model/prior=vamp", "model.prior.components=20")
    data = loaded(cfg)
    model = build_model(cfg, data.facts.data_shape, data.facts.levels)
    model.initialize(data.training())
    first = data.training().fetch(torch.tensor([0])).x
    assert torch.equal(model.prior.pseudo_inputs[:1].detach(), first)
