"""Models of p(x | y)."""

from __future__ import annotations

import pytest
import torch

from tests.support import SMALL, binary_batch, build_learner, build_model, choices, compose
from vae_train.assembly import model_mistakes
from vae_train.config import build
from vae_train.draws import Draw
from vae_train.errors import UsageError

SIZES = (10, 4)


def conditional(model="mlp", kind="label", *overrides):
    small = SMALL if model == "mlp" else ("latent_dim=3",)
    cfg = compose(f"model={model}", *small, f"model.condition={kind}", "model/likelihood=bernoulli", *overrides)
    torch.manual_seed(0)
    return build(cfg.model, data_shape=(1, 8, 8), levels=2, factor_sizes=SIZES)


def labelled(size=6):
    y = torch.stack([torch.arange(size) % n for n in SIZES], 1)
    return binary_batch(size)._replace(y=y)


@pytest.mark.parametrize("kind", ["label", "factors"])
@pytest.mark.parametrize("model", choices("model"))
def test_encoder_decoder_and_prior_see_y(model, kind):
    found, batch = conditional(model, kind), labelled()
    torch.nn.init.normal_(found.condition.prior.weight)
    other = batch._replace(y=(batch.y + 1) % torch.tensor(SIZES))
    first, second = found(batch, Draw(0, "x")), found(other, Draw(0, "x"))
    assert not torch.equal(first.latents[0].q.mean, second.latents[0].q.mean)
    assert not torch.equal(first.latents[0].p.mean, second.latents[0].p.mean)
    z = first.latents[0].z
    assert not torch.equal(found.decode(z, batch.y).mean, found.decode(z, other.y).mean)
    for column in range(len(SIZES)):
        changed = batch.y.clone()
        changed[:, column] = (changed[:, column] + 1) % SIZES[column]
        same = torch.equal(found.decode(z, changed).mean, found.decode(z, batch.y).mean)
        assert same == (kind == "label" and column == 1)


def test_the_conditional_prior_starts_as_the_unconditional_one():
    found = conditional()
    p = found(labelled(), Draw(0, "x")).latents[0].p
    assert torch.equal(p.mean, torch.zeros(6, 3))
    assert torch.equal(p.log_scale, torch.zeros(6, 3))


def test_the_rate_stays_closed_with_a_normal_prior_and_every_part_of_the_condition_learns():
    cfg = compose(*SMALL, "model.condition=label")
    model = conditional()
    learner = build_learner(cfg, model)
    before = {name: p.clone() for name, p in model.condition.named_parameters()}
    latent = model(labelled(), Draw(0, "x")).latents[0]
    assert latent.rate_terms().shape == (6, 3)
    for step in range(3):
        learner.update(labelled(), step)
    assert all(not torch.equal(before[name], p) for name, p in model.condition.named_parameters())


def test_samples_are_of_the_class_that_is_asked_for():
    found = conditional()
    three = torch.full((5, 1), 3)
    z = found.prior(found.encode).sample(Draw(1, "x"), 5)
    torch.nn.init.normal_(found.condition.prior.weight)
    shift, log_scale = found.condition.moments(three)
    # One draw of each of the five distributions takes the same numbers as five draws of one.
    expected = found.decode(shift + log_scale.exp() * z, three).mean
    assert torch.allclose(found.sample(5, Draw(1, "x"), y=three).mean, expected, atol=1e-6)


def test_without_a_class_all_are_drawn_in_turn():
    found = conditional(kind="factors")
    assert found.condition.in_turn(12, torch.device("cpu")).tolist()[8:] == [[8, 0], [9, 0], [0, 1], [1, 1]]
    y = found.condition.in_turn(12, torch.device("cpu"))
    assert torch.equal(found.sample(12, Draw(1, "x")).mean, found.sample(12, Draw(1, "x"), y=y).mean)


def test_a_model_without_a_condition_takes_no_notice_of_y():
    found, batch = build_model(compose(*SMALL), (1, 8, 8), 2), labelled()
    assert torch.equal(found.encode(batch.x).mean, found.encode(batch.x, batch.y).mean)


def test_data_without_labels_is_refused():
    cfg = compose(*SMALL, "model.condition=label")
    with pytest.raises(UsageError, match="condition=label needs labels, and the data has none"):
        build(cfg.model, data_shape=(1, 8, 8), levels=2, factor_sizes=())


def test_a_conditional_model_needs_y():
    with pytest.raises(ValueError, match="a conditional model needs y"):
        conditional().encode(binary_batch(3).x)


def test_digits_can_be_conditioned():
    assert model_mistakes(compose(*SMALL, "model.condition=label")) == []
