"""Models with several stochastic layers."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from tests.support import (
    BINARY,
    LAYERED,
    binary_batch,
    build,
    build_learner,
    build_model,
    build_objective,
    choices,
    combination_errors,
    compose,
    layered_models,
    run,
    scalars_of,
    update,
)
from vae_train.batch import Batch
from vae_train.distributions.normal import Normal
from vae_train.model.base import Network
from vae_train.model.hierarchy import Hierarchy, normal
from vae_train.model.lvae import weighted
from vae_train.model.posterior.gaussian import Gaussian
from vae_train.model.prior.standard_normal import StandardNormal
from vae_train.model.vae import VAE
from vae_train.objective.iwae import IWAE
from vae_train.rng import BlockRng, FixedNoise, Rng
from vae_train.training.gradients import EagerGradients, functional_gradients
from vae_train.training.step import StepInputs
from vae_train.util.errors import UsageError

MODELS = pytest.mark.parametrize("name", LAYERED)
VARIANTS = [
    ("lvae",),
    ("lvae", "model.combine=relative"),
    ("lvae", "model.skip=true", "model.norm=none"),
    ("lvae", "model.combine=relative", "model.skip=true"),
    ("hvae",),
    ("convhvae", "model.log_variance=null"),
    ("ladder",),
    ("ladder", "model.combine=absolute", "model.groups=null"),
    ("ladder", "model.cell=nvae", "model.norm=group", "model.groups=[[8,1],[2,1]]"),
]


def config(name, *overrides):
    return compose(f"model={name}", *LAYERED[name], *BINARY, *overrides)


def small(name, *overrides):
    return build_model(config(name, *overrides), (1, 8, 8), 2)


def zs(latents):
    return [latent.z for latent in latents]


@pytest.mark.parametrize("words", VARIANTS, ids=" ".join)
@pytest.mark.parametrize("num_samples", [1, 4])
def test_a_trace_has_its_shapes(words, num_samples):
    model, batch = small(*words), binary_batch(5)
    trace = model(batch, Rng(0, "x"), num_samples)
    assert tuple(latent.z.shape for latent in trace.latents) == tuple((num_samples, 5, *s) for s in model.latent_shapes)
    first, *others = trace.latents
    assert first.q.batch_shape == (5,)
    assert {latent.q.batch_shape for latent in others} == {(num_samples, 5)}
    assert (trace.px.batch_shape, trace.px.event_shape) == ((num_samples, 5), (1, 8, 8))
    assert trace.log_weight().shape == (num_samples, 5)
    assert torch.allclose(trace.rate(), sum(latent.rate() for latent in trace.latents), rtol=1e-5)
    assert all(latent.rate().shape == (5,) and (latent.rate() >= 0).all() for latent in trace.latents)


@MODELS
def test_a_closed_rate_agrees_with_its_samples(name):
    model, num_samples = small(name), 4000
    for latent in model(binary_batch(3), Rng(0, "x"), num_samples).latents:
        each = -latent.log_ratio()
        assert ((latent.rate() - each.mean(0)).abs() < 5 * each.std(0) / math.sqrt(num_samples) + 1e-5).all()


@MODELS
def test_inference_and_decoding_are_the_two_halves_of_a_pass(name):
    model, batch = small(name), binary_batch(5)
    trace, latents = model(batch, Rng(0, "x"), 3), model.infer(batch.x, None, Rng(0, "x"), 3)
    assert all(torch.equal(*pair) for pair in zip(zs(latents), zs(trace.latents), strict=True))
    assert torch.equal(model.decode_latents(zs(latents)).mean, trace.px.mean)
    single = model.decode_latents([z[0] for z in zs(latents)])
    assert single.batch_shape == (5,)
    assert torch.allclose(single.mean, trace.px.mean[0], atol=1e-6)


@MODELS
def test_at_temperature_0_every_layer_is_at_its_mean(name):
    model, batch = small(name), binary_batch(5)
    latents = model.infer(batch.x, None, Rng(0, "x"), 2, temperature=0.0)
    assert all(torch.equal(latent.z, latent.q.mean.expand_as(latent.z)) for latent in latents)
    assert torch.equal(*model.sample(2, Rng(0, "x"), 0.0).mean)


@MODELS
def test_each_layer_has_its_own_temperature(name):
    model = small(name)
    count = len(model.latent_shapes)
    for layer in range(count):
        temperature = [0.0] * count
        temperature[layer] = 1.0
        assert not torch.equal(*model.sample(2, Rng(0, "x"), temperature).mean), layer
    ones = model.sample(3, Rng(0, "x"), [1.0] * count).mean
    assert torch.equal(ones, model.sample(3, Rng(0, "x")).mean)
    with pytest.raises(ValueError, match=f"needs one number, or {count}: one per stochastic layer"):
        model.sample(2, Rng(0, "x"), [1.0] * (count + 1))


@MODELS
def test_noise_belongs_to_the_image_not_to_the_batch(name):
    model, batch = small(name), binary_batch(100)
    whole = model(batch, BlockRng(0, "x", 0), 3)
    part = model(batch.part(70, 90), BlockRng(0, "x", 70), 3)
    assert torch.allclose(whole.log_weight()[:, 70:90], part.log_weight(), atol=1e-3)


@pytest.mark.parametrize("words", VARIANTS, ids=" ".join)
def test_microbatches_and_pure_gradients_are_those_of_the_whole_batch(words):
    cfg = config(*words, "objective.num_samples=2", "optimizer=sgd", "lr=1e-3", "learner.ema=0.9")
    whole, cut = (build_learner(cfg, small(*words)) for _ in range(2))
    cut.grad_accumulation = 3
    for step in range(2):
        batch = binary_batch(10, seed=step)
        expected, found = update(whole, batch, step), update(cut, batch, step)
        assert {k: v.item() for k, v in found.items()} == pytest.approx(
            {k: v.item() for k, v in expected.items()}, rel=1e-4, abs=1e-6
        )
    assert {f"rate_{i + 1}" for i in range(len(whole.model.latent_shapes))} <= set(expected)
    assert sum(v for k, v in expected.items() if k.startswith("rate_")).item() == pytest.approx(expected["rate"].item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in whole.parameters)
    batch = binary_batch(7)
    exact = EagerGradients(whole.module)(StepInputs(batch, 3, (), Rng(0, "train", 3)), 1.0)
    parameters, buffers = [p.detach() for p in whole.parameters], list(whole.module.buffers())
    compute = functional_gradients(whole.module, {"loss": list(range(len(parameters)))}, 1.0)
    pure = compute(parameters, buffers, StepInputs(batch, 3, (), Rng(0, "train", 3)))
    for a, b in zip(pure.gradients, exact.gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@MODELS
def test_a_learner_goes_on_from_its_state(name):
    cfg = config(name, "learner.ema=0.9", "optimizer=adamax")
    whole, second = (build_learner(cfg, small(name)) for _ in range(2))
    for step in range(2):
        update(whole, binary_batch(10, seed=step), step)
    second.load_state_dict(deepcopy(whole.state_dict()))
    first, again = (update(each, binary_batch(10, seed=2), 2)["loss"] for each in (whole, second))
    assert torch.equal(first, again)
    pairs = zip(whole.evaluated.parameters(), second.evaluated.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


REFUSED = {"tcvae", "factor_vae", "dip_vae", "info_vae", "wae_mmd", "wae_gan", "sliced_wasserstein", "rae"}


@MODELS
@pytest.mark.parametrize("objective", choices("objective"))
def test_every_objective_trains_or_is_refused(name, objective):
    cfg = config(name)
    cfg.objective = compose(f"objective={objective}", "batch_size=6").objective
    errors = combination_errors(cfg)
    if objective in REFUSED:
        assert [error.where for error in errors] == [f"objective={objective}"]
        assert "use" in errors[0].message
        return
    assert errors == []
    learner = build_learner(cfg, small(name))
    for step in range(2):
        scalars = update(learner, binary_batch(6), step)
        assert all(value.isfinite() for value in scalars.values()), scalars


@MODELS
def test_an_objective_for_a_single_layer_says_so(name):
    (error,) = combination_errors(config(name, "objective=tcvae"))
    assert error.message == (
        "is defined by the total correlation of z, but the model has several layers of latents; "
        "use objective=elbo or model=conv"
    )


@MODELS
@pytest.mark.parametrize("per", ["layer", "dimension"])
def test_free_bits_are_free_in_every_layer(name, per):
    model, batch = small(name), binary_batch(6)
    trace = model(batch, Rng(0, "x"))
    free = 0.7
    objective = build_objective(
        config(name, "objective=free_bits", f"objective.free_bits_per={per}", "objective.free_bits=0.7")
    )
    rates = [latent.rate().mean() if per == "layer" else latent.rate_elementwise().mean(0) for latent in trace.latents]
    expected = sum(rate.clamp(min=free).sum() for rate in rates)
    assert scalars_of(objective, trace)["floored_rate"].item() == pytest.approx(expected.item(), rel=1e-5)


@MODELS
def test_importance_weights_tighten_the_bound(name):
    model, batch = small(name), binary_batch(200)
    values = [-run(model, IWAE(k, "standard"), batch, Rng(0, "x"))["loss"].item() for k in (1, 8, 64)]
    assert values[0] < values[1] < values[2]


@MODELS
def test_the_noise_of_a_layer_does_not_depend_on_the_temperatures_of_others(name):
    model = small(name)
    layers = len(model.latent_shapes)
    cold, nearly = ([value] + [1.0] * (layers - 1) for value in (0.0, 1e-7))
    means = [model.sample(4, Rng(0, "x"), temperatures).mean for temperatures in (cold, nearly)]
    assert torch.allclose(*means, atol=1e-4)


class Chain(Hierarchy):
    """z1 ~ N(0, 1), z2 = a z1 + s e, x = c z2 + t e for every dimension, with the exact posterior."""

    a, s, c, t, size = 0.8, 0.7, 1.3, 0.5, 4

    def __init__(self):
        likelihood = compose(
            "model/likelihood=gaussian", f"model.likelihood.scale={self.t}", "model.likelihood.scale_mode=fixed"
        )
        super().__init__((1, 1, self.size), None, (self.size,), build(likelihood.model.likelihood), None, (), "init")
        self.decoder = _Scaled(self.c, self.size)

    latent_shapes = ((4,), (4,))

    @classmethod
    def num_layers(cls, **settings):
        return 2

    def bottom_up(self, x):
        return x.flatten(1), x.flatten(1)

    def top_down(self, choose):
        zero = torch.zeros(self.size, dtype=torch.float64)
        z1 = choose(0, Normal(zero, zero), zero)
        return choose(1, Normal(self.a * z1, zero + math.log(self.s)), z1)

    def posterior(self, layer, features, p, state):
        variance = (self.t / self.c) ** 2 + (0 if layer else self.s**2)
        slope = 1.0 if layer else self.a
        scale = torch.full_like(features, 0.5 * math.log(variance / slope**2))
        return weighted(Normal(features / self.c / slope, scale), p)


class _Scaled(Network):
    def __init__(self, factor, size):
        super().__init__((size,), (1, 1, size))
        self.factor = factor

    def forward(self, h):
        return (self.factor * h).unflatten(-1, (1, 1, -1))


@pytest.mark.parametrize("num_samples", [1, 2, 7])
def test_every_bound_of_an_exact_chain_is_the_evidence(num_samples):
    chain = Chain()
    x = torch.randn(20, 1, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    variance = chain.c**2 * (chain.a**2 + chain.s**2) + chain.t**2
    log_p = Normal(
        torch.zeros(1, 1, 4, dtype=torch.float64), torch.tensor(0.5 * math.log(variance)).double(), 3
    ).log_prob(x)
    trace = chain(Batch(x), Rng(0, "x"), num_samples)
    assert torch.allclose(trace.log_weight(), log_p.expand(num_samples, 20), rtol=0, atol=1e-6)
    bound = -scalars_of(IWAE(num_samples, "standard"), trace)["loss"]
    assert bound.item() == pytest.approx(log_p.mean().item(), abs=1e-6)


def test_the_elbo_of_an_exact_chain_is_the_evidence_in_expectation():
    chain, num_samples = Chain(), 50_000
    x = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64).view(1, 1, 1, 4)
    trace = chain(Batch(x), Rng(0, "x"), num_samples)
    sampled = trace.log_likelihood() + sum(latent.log_ratio() for latent in trace.latents)
    error = (trace.log_likelihood() - trace.latents[1].rate()).std() / math.sqrt(num_samples)
    assert abs(trace.elbo().item() - sampled.mean().item()) < 6 * error


class _Encoder(Network):
    """The posterior of a ladder of one layer, as the encoder of a VAE: mean and log-variance of q."""

    def __init__(self, ladder, in_shape, out_shape):
        super().__init__(in_shape, out_shape)
        self.ladder = [ladder]

    def forward(self, h):
        (latent,) = self.ladder[0].infer(h, None, Rng(0, "not used"))
        return torch.cat([latent.q.mean, 2 * latent.q.log_scale], 1)


class _Decoder(Network):
    """The top-down half of a ladder of one layer, as the decoder of a VAE."""

    def __init__(self, ladder, in_shape, out_shape):
        super().__init__(in_shape, out_shape)
        self.ladder = [ladder]

    def forward(self, h):
        return self.ladder[0].decode_latents([h]).parameters


ONE_LAYER = [("lvae", "model.latents=[3]", "model.hidden=[16]"), ("ladder", "model.groups=[[4,1]]")]


@pytest.mark.parametrize("words", ONE_LAYER, ids=" ".join)
def test_a_ladder_of_one_layer_is_the_vae(words):
    ladder, batch = small(*words), binary_batch(6)
    (shape,) = ladder.latent_shapes
    vae = VAE(
        *((1, 8, 8), 2, list(shape)),
        *(lambda **shapes: _Encoder(ladder, **shapes), lambda **shapes: _Decoder(ladder, **shapes)),
        *(lambda **given: Gaussian(log_variance=None, **given), StandardNormal, lambda **given: ladder.likelihood),
        *(None, (), "init"),
    )
    one, other = (model(batch, Rng(0, "x"), 3) for model in (ladder, vae))
    assert torch.allclose(one.latents[0].z, other.latents[0].z, atol=1e-6)
    for name in ("rate", "distortion", "elbo", "log_weight"):
        # The ladder's scales have a lower bound, so that of its prior is 1.0001.
        torch.testing.assert_close(getattr(one, name)(), getattr(other, name)(), rtol=1e-4, atol=1e-2)


def test_a_ladder_of_lists_that_differ_is_refused():
    (error,) = combination_errors(config("lvae", "model.latents=[4,2]", "model.hidden=[8]"))
    assert (error.where, error.message) == (
        "model.hidden=[8]",
        "has 1 values, but latents has 2 layers; use model.hidden=[512,256]",
    )


SIZES = [(1, 8, 8), (3, 37, 53), (1, 1, 10), (2, 1, 50), (3, 2, 2), (1, 28, 28)]


@MODELS
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_images_of_any_size_are_taken(name, shape):
    words = [word for word in LAYERED[name] if "groups" not in word]
    cfg = compose(f"model={name}", *words, "model/likelihood=gaussian")
    model = build_model(cfg, shape, None)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    scalars = update(build_learner(cfg, model), Batch(x), 0)
    assert all(value.isfinite() for value in scalars.values())
    assert model.sample(3, Rng(0, "x")).mean.shape == (3, *shape)


def test_groups_are_scales_of_the_image_from_the_image_up():
    model = small("ladder", "model.groups=[[8,2],[2,1],[1,1]]")
    assert model.latent_shapes == ((2, 1, 1), (2, 2, 2), (2, 8, 8), (2, 8, 8))
    assert small("ladder", "model.groups=null").latent_shapes == ((2, 4, 4), (2, 4, 4), (2, 8, 8), (2, 8, 8))


@pytest.mark.parametrize("groups", ["[[2,1],[4,1]]", "[[4,1],[4,1]]", "[[4]]", "[[4,1,1]]", "[]"])
def test_groups_that_are_no_pairs_from_large_to_small_are_refused(groups):
    (error,) = combination_errors(config("ladder", f"model.groups={groups}"))
    assert error.where.startswith("model.groups=[")
    assert error.message == (
        "needs pairs of a size and a number of layers, from the largest size to the smallest; "
        "use model.groups=[[8,2],[4,3]]"
    )


def test_a_group_that_is_no_scale_of_the_image_is_refused():
    with pytest.raises(
        UsageError, match=r"size of 3, but images of 8x8 pixels are halved to 8, 4, 2, 1; use model.gro"
    ):
        small("ladder", "model.groups=[[3,1]]")


def test_every_layer_of_a_ladder_starts_with_a_standard_normal_prior():
    for latent in small("ladder")(binary_batch(5), Rng(0, "x")).latents:
        assert torch.equal(latent.p.mean, torch.zeros_like(latent.p.mean))
        assert torch.allclose(latent.p.log_scale, torch.zeros_like(latent.p.log_scale), atol=1e-3)


def test_gradients_stay_finite_far_from_the_prior():
    """The scale grows linearly with its parameter, unlike exp, and has a lower bound."""
    parameters = torch.tensor([[0.0, 1e4], [0.0, -1e4]], requires_grad=True)
    p = normal(parameters, 1)
    assert p.log_scale.flatten().tolist() == pytest.approx([math.log(1e4), math.log(1e-4)], abs=1e-3)
    p.log_scale.sum().backward()
    assert parameters.grad.isfinite().all()


@MODELS
def test_bfloat16_gives_log_probabilities_in_float32(name):
    learner = build_learner(config(name, "precision=bfloat16"), small(name))
    traces = []
    learner.model.register_forward_hook(lambda module, given, trace: traces.append(trace))
    update(learner, binary_batch(6), 0)
    (trace,) = traces
    for latent in trace.latents:
        assert {latent.rate().dtype, latent.log_ratio().dtype, latent.q.mean.dtype} == {torch.float32}
    assert trace.log_weight().dtype == torch.float32


@pytest.mark.parametrize("name", layered_models())
def test_a_pass_compiles_to_one_graph(name):
    model, objective, batch = small(name), build_objective(config(name)), binary_batch(6)
    noise = [torch.randn(1, 6, *shape) for shape in model.latent_shapes]

    def loss(x, noise):
        return run(model, objective, Batch(x), FixedNoise(noise))["loss"]

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert compiled(batch.x, noise).item() == pytest.approx(loss(batch.x, noise).item(), rel=1e-5)


@MODELS
def test_stacked_models_have_the_gradients_of_each(name):
    models, objective = [small(name, f"seed={seed}") for seed in range(2)], build_objective(config(name))
    batch = binary_batch(6)
    noise = [torch.randn(2, 1, 6, *shape) for shape in models[0].latent_shapes]

    def loss(parameters, buffers, noise):
        trace = functional_call(models[0], (parameters, buffers), (batch, FixedNoise(noise)))
        return scalars_of(objective, trace)["loss"]

    gradients, losses = vmap(grad_and_value(loss))(*stack_module_state(models), noise)
    for i, model in enumerate(models):
        alone = run(model, objective, batch, FixedNoise([each[i] for each in noise]))["loss"]
        alone.backward()
        assert torch.allclose(losses[i], alone, rtol=1e-4)
        for key, p in model.named_parameters():
            torch.testing.assert_close(gradients[key][i], p.grad, atol=1e-4, rtol=1e-4)
