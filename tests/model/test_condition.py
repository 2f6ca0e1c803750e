"""Models of p(x | y)."""

from __future__ import annotations

import pytest
import torch

from tests.support import (
    BINARY,
    LAYERED,
    SMALL,
    binary_batch,
    build,
    build_learner,
    build_model,
    choices,
    compose,
    locate,
    model_errors,
    single_latent_models,
    update,
)
from vae_train.batch import Batch
from vae_train.rng import Rng
from vae_train.util.errors import UsageError

SIZES = (10, 4)
POSTERIOR = {"real": "gaussian", "categorical": "categorical", "joint": "joint"}


def priors():
    """Every prior that can see y, with a posterior of its domain."""
    for name in choices("model/prior"):
        target = locate(compose(f"model/prior={name}").model.prior._target_)
        if target.accepts_condition:
            yield POSTERIOR[target.supports[0]], name


PAIRS = list(priors())


def chosen(posterior, prior):
    """`latent_dim` is one that all of them can have."""
    return f"model/posterior={posterior}", f"model/prior={prior}", "latent_dim=10"


def accepts_condition(model="mlp", kind="label", *overrides):
    small = {"mlp": SMALL, "conv_spatial": ("latent_shape=[3,2,2]",)}.get(model, ("latent_dim=3",))
    cfg = compose(f"model={model}", *small, f"model.condition={kind}", "model/likelihood=bernoulli", *overrides)
    torch.manual_seed(0)
    return build(cfg.model, data_shape=(1, 8, 8), levels=2, factor_sizes=SIZES)


def conditional_layers(name, kind="label"):
    """A model with several layers, all of whose maps of y have an effect."""
    below = ["model.skip=true"] if name == "lvae" else []  # otherwise x depends on the lowest layer alone
    cfg = compose(f"model={name}", *LAYERED[name], *BINARY, f"model.condition={kind}", *below)
    torch.manual_seed(0)
    found = build(cfg.model, data_shape=(1, 8, 8), levels=2, factor_sizes=SIZES)
    for p in [*found.condition.prior.parameters(), *found.decoder_parameters()]:
        torch.nn.init.normal_(p, 0, 0.3)
    return found


def labeled(size=6):
    y = torch.stack([torch.arange(size) % n for n in SIZES], 1)
    return binary_batch(size)._replace(y=y)


@pytest.mark.parametrize("kind", ["label", "factors"])
@pytest.mark.parametrize("model", single_latent_models())
def test_encoder_decoder_and_prior_see_y(model, kind):
    found, batch = accepts_condition(model, kind), labeled()
    torch.nn.init.normal_(found.condition.prior.weight)
    other = batch._replace(y=(batch.y + 1) % torch.tensor(SIZES))
    first, second = found(batch, Rng(0, "x")), found(other, Rng(0, "x"))
    assert not torch.equal(first.latents[0].q.mean, second.latents[0].q.mean)
    assert not torch.equal(first.latents[0].p.mean, second.latents[0].p.mean)
    z = first.latents[0].z
    assert not torch.equal(found.decode(z, batch.y).mean, found.decode(z, other.y).mean)
    for column in range(len(SIZES)):
        changed = batch.y.clone()
        changed[:, column] = (changed[:, column] + 1) % SIZES[column]
        same = torch.equal(found.decode(z, changed).mean, found.decode(z, batch.y).mean)
        assert same == (kind == "label" and column == 1)


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_every_conditional_prior_starts_as_the_unconditional_one_and_comes_to_see_y(posterior, prior):
    found, batch = accepts_condition("mlp", "label", *chosen(posterior, prior)), labeled()
    latent = found(batch, Rng(0, "x")).latents[0]
    p, alone = latent.p, found.prior(found.encode)
    assert (p.batch_shape, alone.batch_shape) == ((6,), ())
    assert torch.allclose(p.log_prob(latent.z), alone.log_prob(latent.z), atol=1e-4)
    found(batch, Rng(0, "x")).rate().sum().backward()
    assert found.condition.prior.weight.grad.abs().sum() > 0
    torch.nn.init.normal_(found.condition.prior.weight)
    told, exact = found(batch, Rng(0, "x")).latents[0], found.prior(found.encode)
    assert not torch.allclose(told.p.log_prob(told.z), exact.log_prob(told.z), atol=1e-2)
    drawn = found.sample(6, Rng(1, "x"), y=batch.y)
    assert drawn.mean.isfinite().all()


@pytest.mark.parametrize(("posterior", "prior"), [pair for pair in PAIRS if pair[0] in ("categorical", "joint")])
def test_categories_of_a_conditional_prior_have_masses_for_every_y(posterior, prior):
    found, y = accepts_condition("mlp", "label", *chosen(posterior, prior)), labeled().y
    torch.nn.init.normal_(found.condition.prior.weight)
    p = found(Batch(torch.zeros(len(y), 1, 8, 8), y), Rng(0, "x")).latents[0].p
    part = p.parts[-1] if posterior == "joint" else p
    blocks = part.mean.unflatten(-1, (-1, part.categories))
    assert torch.allclose(blocks.sum(-1), torch.ones(6, blocks.shape[1]))
    assert (blocks[0] - blocks[1]).abs().max() > 0.01
    trace = found(labeled(), Rng(0, "x"), 2000)
    each = -trace.latents[0].log_ratio()
    assert ((trace.rate() - each.mean(0)).abs() < 5 * each.std(0) / 2000**0.5).all()


@pytest.mark.parametrize("posterior", ["gaussian", "von_mises_fisher", "categorical", "joint"])
@pytest.mark.parametrize("prior", ["vamp", "exemplar"])
def test_a_prior_made_of_encoded_images_is_refused(posterior, prior):
    (mistake,) = [
        m
        for m in model_errors(compose("model.condition=label", *chosen(posterior, prior)))
        if m.where == "model.condition=label"
    ]
    assert "unconditional posteriors" in mistake.message
    usual = mistake.message.rpartition("model/prior=")[2]
    assert model_errors(compose("model.condition=label", *chosen(posterior, usual))) == []


def test_a_uniform_prior_is_the_same_for_every_y():
    found = accepts_condition("mlp", "label", *chosen("von_mises_fisher", "uniform_sphere"))
    assert found.condition.prior is None
    assert found(labeled(), Rng(0, "x")).latents[0].p.batch_shape == ()
    assert found.sample(4, Rng(0, "x")).mean.isfinite().all()


def test_the_rate_stays_closed_with_a_normal_prior_and_every_part_of_the_condition_learns():
    cfg = compose(*SMALL, "model.condition=label")
    model = accepts_condition()
    learner = build_learner(cfg, model)
    before = {name: p.clone() for name, p in model.condition.named_parameters()}
    latent = model(labeled(), Rng(0, "x")).latents[0]
    assert latent.rate_elementwise().shape == (6, 3)
    for step in range(3):
        update(learner, labeled(), step)
    assert all(not torch.equal(before[name], p) for name, p in model.condition.named_parameters())


def test_samples_are_of_the_class_that_is_asked_for():
    found = accepts_condition()
    three = torch.full((5, 1), 3)
    z = found.prior(found.encode).sample(Rng(1, "x"), 5)
    torch.nn.init.normal_(found.condition.prior.weight)
    shift, log_scale = found.condition.moments(three)
    # One sample of each of the five distributions takes the same numbers as five samples of one.
    expected = found.decode(shift + log_scale.exp() * z, three).mean
    assert torch.allclose(found.sample(5, Rng(1, "x"), y=three).mean, expected, atol=1e-6)


def test_without_a_class_samples_cycle_through_all():
    found = accepts_condition(kind="factors")
    assert found.condition.cycle(12, torch.device("cpu")).tolist()[8:] == [[8, 0], [9, 0], [0, 1], [1, 1]]
    y = found.condition.cycle(12, torch.device("cpu"))
    assert torch.equal(found.sample(12, Rng(1, "x")).mean, found.sample(12, Rng(1, "x"), y=y).mean)


def test_a_model_without_a_condition_takes_no_notice_of_y():
    found, batch = build_model(compose(*SMALL), (1, 8, 8), 2), labeled()
    assert torch.equal(found.encode(batch.x).mean, found.encode(batch.x, batch.y).mean)


def test_data_without_labels_is_refused():
    cfg = compose(*SMALL, "model.condition=label")
    with pytest.raises(UsageError, match="condition=label needs labels, but the data has none"):
        build(cfg.model, data_shape=(1, 8, 8), levels=2, factor_sizes=())


def test_a_conditional_model_needs_y():
    with pytest.raises(ValueError, match="a conditional model needs y"):
        accepts_condition().encode(binary_batch(3).x)


def test_digits_can_be_conditioned():
    assert model_errors(compose(*SMALL, "model.condition=label")) == []


@pytest.mark.parametrize("kind", ["label", "factors"])
@pytest.mark.parametrize("name", LAYERED)
def test_the_encoder_the_topmost_prior_and_the_layers_below_depend_on_y(name, kind):
    found, batch = conditional_layers(name, kind), labeled()
    other = batch._replace(y=(batch.y + 1) % torch.tensor(SIZES))
    first, second = found(batch, Rng(0, "x"), 2), found(other, Rng(0, "x"), 2)
    for one, two in zip(first.latents, second.latents, strict=True):
        assert not torch.allclose(one.q.mean, two.q.mean)
        assert not torch.allclose(one.p.mean, two.p.mean)
    z = [latent.z for latent in first.latents]
    assert torch.allclose(found.decode_latents(z, batch.y).mean, first.px.mean)
    for column in range(len(SIZES)):
        changed = batch.y.clone()
        changed[:, column] = (changed[:, column] + 1) % SIZES[column]
        same = torch.equal(found.decode_latents(z, changed).mean, found.decode_latents(z, batch.y).mean)
        assert same == (kind == "label" and column == 1)


@pytest.mark.parametrize("name", LAYERED)
def test_a_conditional_hierarchy_samples_the_class_that_is_asked_for(name):
    found = conditional_layers(name, "factors")
    y = found.condition.cycle(12, torch.device("cpu"))
    assert torch.equal(found.sample(12, Rng(1, "x")).mean, found.sample(12, Rng(1, "x"), y=y).mean)
    assert not torch.allclose(found.sample(12, Rng(1, "x"), y=y.flip(0)).mean, found.sample(12, Rng(1, "x")).mean)
    with pytest.raises(ValueError, match="a conditional model needs y"):
        found(binary_batch(3), Rng(0, "x"))


@pytest.mark.parametrize("name", LAYERED)
def test_every_part_of_the_condition_of_a_hierarchy_learns(name):
    cfg = compose(f"model={name}", *LAYERED[name], *BINARY)
    model = conditional_layers(name)
    learner = build_learner(cfg, model)
    before = {key: p.clone() for key, p in model.condition.named_parameters()}
    for step in range(3):
        update(learner, labeled(), step)
    assert all(not torch.equal(before[key], p) for key, p in model.condition.named_parameters())
    inference = {id(p) for p in model.inference_parameters()}
    assert {id(p) for p in model.condition.channel.parameters()} <= inference
    assert inference.isdisjoint(id(p) for p in model.decoder_parameters())


@pytest.mark.parametrize("name", ["hvae", "convhvae"])
@pytest.mark.parametrize("prior", ["vamp", "exemplar"])
def test_a_topmost_prior_made_of_encoded_images_is_refused_with_a_condition(name, prior):
    choices = (f"model={name}", *LAYERED[name], f"model/prior={prior}", "model.condition=label")
    (error,) = model_errors(compose(*choices))
    assert error.where == "model.condition=label"
    assert "unconditional posteriors" in error.message


def test_a_topmost_prior_without_a_condition_is_the_same_for_every_y(monkeypatch):
    monkeypatch.setattr("vae_train.model.prior.standard_normal.StandardNormal.accepts_condition", False)
    found = build(
        compose("model=hvae", *LAYERED["hvae"], *BINARY, "model.condition=label").model,
        data_shape=(1, 8, 8),
        levels=2,
        factor_sizes=SIZES,
    )
    assert found.condition.prior is None
    assert found(labeled(), Rng(0, "x")).latents[0].p.batch_shape == ()
