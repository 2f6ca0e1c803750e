from __future__ import annotations

import pytest
import torch

from tests.support import (
    SMALL,
    binary_batch,
    build_learner,
    build_model,
    compose,
    facts_without_files,
    locate,
    single_latent_models,
    update,
)
from vae_train.batch import Batch
from vae_train.model.likelihood.bernoulli import Bernoulli
from vae_train.model.likelihood.gaussian import Gaussian
from vae_train.rng import FixedNoise, Rng
from vae_train.runs import compatibility
from vae_train.util.errors import UsageError

SIZES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 64, 48), (1, 37, 53), (3, 224, 224), (3, 256, 256)]
MODELS = pytest.mark.parametrize("model", single_latent_models())


def small(model="mlp", *overrides):
    latents = "latent_shape=[3,2,2]" if model == "conv_spatial" else "latent_dim=3"
    cfg = compose(f"model={model}", "model/likelihood=bernoulli", latents, *overrides)
    return build_model(cfg, (1, 8, 8), 2)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_conv_takes_a_training_step_at_every_size(shape):
    cfg = compose("model=conv", "model/likelihood=gaussian", "optimizer=sgd", "lr=1e-9")
    learner = build_learner(cfg, build_model(cfg, shape, 256))
    levels = torch.randint(256, (2, *shape), generator=torch.Generator().manual_seed(0))
    scalars = update(learner, Batch(levels / 255), 0)
    assert all(value.isfinite() for value in scalars.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters)
    assert learner.model.decode(torch.zeros(2, 10)).mean.shape == (2, *shape)


def count(module):
    return sum(p.numel() for p in module.parameters())


def experiment(name):
    cfg = compose(f"experiment={name}")
    facts = facts_without_files(cfg)
    return build_model(cfg, facts.data_shape, facts.levels)


def test_keras_example_has_the_parameters_of_its_original():
    model = experiment("keras_example")
    assert (count(model.encoder), count(model.decoder)) == (69_076, 65_089)
    assert count(model) == 69_076 + 65_089


def test_pytorch_example_has_the_parameters_of_its_original():
    assert count(experiment("pytorch_example")) == 652_824


@MODELS
@pytest.mark.parametrize("num_samples", [1, 4])
def test_a_trace_has_its_shapes(model, num_samples):
    batch = binary_batch(5)
    found = small(model)
    trace = found(batch, Rng(0, "x"), num_samples)
    (latent,) = trace.latents
    assert latent.z.shape == (num_samples, 5, *found.latent_shape)
    assert (latent.q.batch_shape, latent.p.batch_shape) == ((5,), ())
    assert (trace.px.batch_shape, trace.px.event_shape) == ((num_samples, 5), (1, 8, 8))
    assert trace.log_likelihood().shape == trace.log_weight().shape == (num_samples, 5)
    for value in (trace.distortion(), trace.rate(), trace.elbo(), trace.bits_per_dim()):
        assert value.shape == (5,)


def test_the_terms_of_a_trace_belong_together():
    trace = small()(binary_batch(5), Rng(0, "x"), 4)
    (latent,) = trace.latents
    log_weight = trace.px.log_prob(trace.x) + latent.p.log_prob(latent.z) - latent.q.log_prob(latent.z)
    assert torch.allclose(trace.log_weight(), log_weight)
    assert torch.allclose(trace.elbo(), -trace.distortion() - trace.rate())
    assert torch.allclose(trace.distortion(), -trace.px.log_prob(trace.x).mean(0))


def test_bits_per_dim_follow_the_formula():
    bits = small()(binary_batch(5), Rng(0, "x"))
    assert torch.allclose(bits.bits_per_dim(), -bits.elbo() / 64 / torch.tensor(2.0).log())
    model = build_model(compose(*SMALL, "model/likelihood=gaussian"), (1, 8, 8), 17)
    grey = model(binary_batch(5), Rng(0, "x"))
    expected = (-grey.elbo() / 64 + torch.tensor(17.0).log()) / torch.tensor(2.0).log()
    assert torch.allclose(grey.bits_per_dim(), expected)


def test_continuous_data_and_grey_targets_have_no_bits_per_dim():
    continuous = build_model(compose(*SMALL, "model/likelihood=gaussian"), (1, 8, 8), None)
    grey = build_model(
        compose(*SMALL, "model/likelihood=bernoulli", "model.likelihood.grey_targets=true"), (1, 8, 8), 17
    )
    for model in (continuous, grey):
        assert model(binary_batch(2), Rng(0, "x")).bits_per_dim() is None


@MODELS
def test_decode_takes_any_leading_shape(model):
    found = small(model).eval()
    z = torch.randn(2, 4, *found.latent_shape)
    many = found.decode(z)
    assert (many.batch_shape, many.event_shape) == ((2, 4), (1, 8, 8))
    assert torch.allclose(many.mean[1, 2], found.decode(z[1, 2]).mean, atol=1e-6)
    assert found.decode(z[0, 0]).batch_shape == ()


@MODELS
def test_samples_are_decoded_draws_from_the_prior(model):
    found = small(model)
    z = torch.randn(6, *found.latent_shape)
    assert found.sample(6, Rng(0, "x")).mean.shape == (6, 1, 8, 8)
    assert torch.equal(found.sample(6, FixedNoise([z])).mean, found.decode(z).mean)
    assert torch.equal(found.sample(6, FixedNoise([z]), temperature=0.5).mean, found.decode(0.5 * z).mean)


@MODELS
def test_a_single_latent_is_a_model_of_one_layer(model):
    found, batch = small(model), binary_batch(5)
    (latent,) = found(batch, Rng(0, "x"), 3).latents
    (inferred,) = found.infer(batch.x, None, Rng(0, "x"), 3)
    assert found.latent_shapes == (found.latent_shape,)
    assert torch.equal(inferred.z, latent.z)
    (mean,) = found.infer(batch.x, None, Rng(0, "x"), 3, temperature=0.0)
    assert torch.equal(mean.z, latent.q.mean.expand(3, 5, *found.latent_shape))
    (half,) = found.infer(batch.x, None, Rng(0, "x"), 3, temperature=0.5)
    assert torch.allclose(half.z, (mean.z + latent.z) / 2, atol=1e-6)
    assert torch.equal(found.decode_latents([latent.z]).mean, found.decode(latent.z).mean)


@MODELS
def test_a_temperature_may_be_given_per_layer(model):
    found = small(model)
    one, each = (found.sample(4, Rng(0, "x"), temperature).mean for temperature in (0.5, [0.5]))
    assert torch.equal(one, each)
    with pytest.raises(ValueError, match="has 2 values; the model needs one number, or 1: one per"):
        found.sample(4, Rng(0, "x"), [0.5, 1.0])


def test_the_encoder_sees_what_is_seen_and_the_target_is_x():
    model, batch, other = small(), binary_batch(5), binary_batch(5, seed=1)
    trace = model(Batch(batch.x, encoder_input=other.x), Rng(0, "x"))
    assert torch.equal(trace.x, batch.x)
    assert torch.equal(trace.latents[0].q.mean, model.encode(other.x).mean)


def test_unobserved_pixels_do_not_count_in_the_distortion():
    model, batch = small(), binary_batch(5)
    mask = torch.zeros_like(batch.x, dtype=torch.bool)
    mask[..., :4] = True
    changed = Batch(torch.where(mask, batch.x, 1 - batch.x), encoder_input=batch.x, mask=mask)
    first = model(Batch(batch.x, mask=mask), Rng(0, "x")).distortion()
    assert torch.equal(first, model(changed, Rng(0, "x")).distortion())
    assert (first < model(batch, Rng(0, "x")).distortion()).all()


@pytest.mark.parametrize("levels", [17, 256, None])
def test_bernoulli_refuses_grey_data_unless_it_is_meant(levels):
    with pytest.raises(ValueError, match="needs binary pixels, but the data has"):
        Bernoulli((1, 8, 8), levels, grey_targets=False)
    meant = Bernoulli((1, 8, 8), levels, grey_targets=True)
    assert meant.warning == "grey targets: not a likelihood"
    assert Bernoulli.check_compatible(levels, grey_targets=True) is None


def test_bernoulli_on_bits_needs_no_warning():
    assert Bernoulli((1, 8, 8), 2, grey_targets=False).warning is None


def test_an_error_names_the_choice_and_what_to_type():
    cfg = compose("model/likelihood=bernoulli")
    (error,) = compatibility.model_errors(cfg.model, 256, locate, cfg.data)
    assert error.where == "model/likelihood=bernoulli"
    assert "256 levels" in error.message
    assert "use model/likelihood=gaussian, data.binarize=threshold or" in error.message


@pytest.mark.parametrize(
    ("likelihood", "levels", "data"),
    [
        ("bernoulli", 256, ["data=arrays", "data.path=x.npy"]),  # arrays cannot be binarized by a threshold
        ("gaussian", 2, ["data=arrays", "data.path=x.npy"]),  # and were not binarized
    ],
)
def test_only_settings_of_the_data_that_would_change_something_are_suggested(likelihood, levels, data):
    cfg = compose(f"model/likelihood={likelihood}", *data)
    (error,) = compatibility.model_errors(cfg.model, levels, locate, cfg.data)
    assert "use model/likelihood=" in error.message
    assert "data.binarize" not in error.message


def test_a_constructor_names_the_node_and_the_reason():
    with pytest.raises(UsageError) as caught:
        build_model(compose("model/likelihood=bernoulli"), (1, 8, 8), 256)
    (error,) = caught.value.errors
    assert error.where == "model.likelihood"
    assert "256 levels" in error.message


@pytest.mark.parametrize("levels", [17, 256])
def test_a_learned_scale_starts_where_it_is_told_and_stays_above_its_floor(levels):
    likelihood = Gaussian((1, 8, 8), levels, scale=0.4, scale_mode="shared")
    assert likelihood.scale.log_scale().exp().item() == pytest.approx(0.4)
    with torch.no_grad():
        likelihood.scale.raw.fill_(-50)
    assert likelihood.scale.log_scale().exp().item() == pytest.approx(1 / (2 * levels))


def test_a_scale_below_its_floor_is_refused():
    with pytest.raises(ValueError, match=r"starts with scale=0.03, but scale_mode=shared has the lower bound"):
        Gaussian((1, 8, 8), 16, scale=0.03, scale_mode="shared")
    fixed = Gaussian((1, 8, 8), 16, scale=0.03, scale_mode="fixed")
    assert fixed.scale.log_scale().exp().item() == pytest.approx(0.03)


def test_only_a_shared_scale_is_a_parameter():
    counts = {
        scale_mode: count(Gaussian((1, 8, 8), 16, 0.3, scale_mode))
        for scale_mode in ("fixed", "shared", "pixel", "optimal")
    }
    assert counts == {"fixed": 0, "shared": 1, "pixel": 0, "optimal": 0}


def test_initial_weights_are_a_function_of_the_seed():
    def weights(seed):
        return torch.cat([p.flatten() for p in small("mlp", f"seed={seed}").parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
