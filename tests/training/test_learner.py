from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from tests.support import (
    BINARY,
    SMALL,
    binary_batch,
    build_learner,
    build_model,
    choices,
    compose,
    inputs,
    small_run,
    update,
)
from vae_train.data.stream import Stream
from vae_train.rng import Rng
from vae_train.training.step import Reports, Statistics


def learner(*overrides):
    cfg = compose(*SMALL, *overrides)
    return build_learner(cfg, build_model(cfg, (1, 8, 8), 2))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("pieces", [2, 3, 4, 8, 20])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_accumulating_gives_the_same_update_scalars_and_gradient(pieces, num_samples):
    options = ("optimizer=sgd", "lr=1e-3", f"objective.num_samples={num_samples}")
    whole, cut = learner(*options), learner(*options, f"learner.grad_accumulation={pieces}")
    for step in range(2):
        batch = binary_batch(10, seed=step)
        expected, found = update(whole, batch, step), update(cut, batch, step)
        assert {k: v.item() for k, v in found.items()} == pytest.approx(
            {k: v.item() for k, v in expected.items()}, rel=1e-4
        )
        for a, b in zip(whole.parameters, cut.parameters, strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(weights(whole.model), weights(cut.model), atol=1e-6)


def test_backward_has_the_gradient_of_the_loss():
    found = learner()
    losses, scalars, _ = found.loss(inputs(found, binary_batch(10), 0))
    expected = torch.autograd.grad(losses["loss"], found.parameters)
    gradients, same_scalars, _ = found.backward(inputs(found, binary_batch(10), 0))
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    assert scalars == same_scalars


def test_the_gradient_is_clipped_and_its_length_before_is_reported():
    free, clipped = learner("optimizer=sgd"), learner("optimizer=sgd", "learner.clip_norm=0.5")
    for found in (free, clipped):
        update(found, binary_batch(10), 0)
    lengths = [found.gradient_norm().item() for found in (free, clipped)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    assert lengths[0] > 0.5
    applied = torch.cat([p.grad.flatten() for p in clipped.parameters]).norm().item()
    assert applied == pytest.approx(0.5, rel=1e-3)
    directions = [torch.cat([p.grad.flatten() for p in found.parameters]) for found in (free, clipped)]
    assert torch.cosine_similarity(*directions, dim=0).item() == pytest.approx(1)


def test_a_gradient_that_two_parameters_share_is_clipped_once():
    found = learner("optimizer=sgd", "learner.clip_norm=0.5")
    shared: dict[torch.Size, torch.Tensor] = {}
    gradients = [shared.setdefault(p.shape, torch.ones_like(p)) for p in found.parameters]
    assert len(shared) < len(gradients)
    found._gradients = lambda inputs, share: Reports(gradients, {}, Statistics({}, {}))
    found.backward(inputs(found, binary_batch(10), 0))
    assert torch.cat([p.grad.flatten() for p in found.parameters]).norm().item() == pytest.approx(0.5, rel=1e-3)


def test_a_short_gradient_is_not_clipped():
    found = learner("optimizer=sgd", "learner.clip_norm=1e6")
    update(found, binary_batch(10), 0)
    length = found.gradient_norm().item()
    assert torch.cat([p.grad.flatten() for p in found.parameters]).norm().item() == pytest.approx(length, rel=1e-5)


def test_the_moving_average_is_what_is_evaluated():
    found = learner("learner.ema=0.7", "lr=0.01")
    average = None
    for step in range(4):
        update(found, binary_batch(10, seed=step), step)
        now = weights(found.model)
        average = now if average is None else 0.7 * average + 0.3 * now
    assert torch.allclose(weights(found.evaluated), average, atol=1e-6)
    assert not torch.allclose(weights(found.evaluated), weights(found.model), atol=1e-4)
    before = found.evaluate(binary_batch(10), 0, 4)["elbo"]
    with torch.no_grad():
        for p in found.model.parameters():
            p.zero_()
    assert found.evaluate(binary_batch(10), 0, 4)["elbo"] == before


def test_without_a_moving_average_the_model_itself_is_evaluated():
    found = learner()
    assert found.evaluated is found.model


@pytest.mark.parametrize("model", choices("model"))
def test_bfloat16_gives_finite_losses_and_float32_log_probabilities(model):
    words = (*BINARY, f"model={model}", "latent_shape=[3,2,2]" if model == "conv_spatial" else "latent_dim=3")
    cfg = compose(*words, "precision=bfloat16")
    found = build_learner(cfg, build_model(cfg, (1, 8, 8), 2))
    seen = []
    found.model.register_forward_hook(lambda module, given, trace: seen.append(trace))
    scalars = update(found, binary_batch(10), 0)
    (trace,) = seen
    assert {trace.log_weight().dtype, trace.rate().dtype, trace.distortion().dtype} == {torch.float32}
    assert all(value.isfinite() for value in scalars.values())
    exact = build_learner(compose(*words), build_model(cfg, (1, 8, 8), 2))
    assert scalars["loss"].item() == pytest.approx(update(exact, binary_batch(10), 0)["loss"].item(), rel=0.02)
    assert scalars["loss"] != update(exact, binary_batch(10), 0)["loss"]


@pytest.mark.parametrize("name", choices("optimizer"))
def test_every_optimizer_lowers_the_loss_on_digits(name):
    data, found, _ = small_run(f"optimizer={name}")
    stream = Stream(data.split("train"), 64, seed=0)
    fixed = data.split("valid").fetch(torch.arange(180))
    before = found.evaluate(fixed, 0, 0)["loss"]
    for step in range(60):
        update(found, stream.batch(step), step)
    assert found.evaluate(fixed, 0, 0)["loss"] < before - 1


def test_the_schedule_sets_the_rate_of_every_update():
    found = learner("lr=0.5", "optimizer=sgd", "lr_schedule=step", "lr_schedule.every=1", "lr_schedule.warmup=1")
    rates = []
    for step in (0, 4, 9, 10, 19, 20, 30):
        update(found, binary_batch(4), step)
        rates.append(found.optimizer.optimizer.param_groups[0]["lr"])
        assert found.rates(step) == [rates[-1]]
    assert rates == pytest.approx([0.05, 0.25, 0.5, 0.5, 0.5, 0.25, 0.125])


def test_an_update_is_a_function_of_weights_batch_and_step():
    first, second, other = learner(), learner(), learner()
    batch = binary_batch(10)
    assert torch.equal(update(first, batch, 7)["loss"], update(second, batch, 7)["loss"])
    assert not torch.equal(update(first, batch, 8)["distortion"], update(other, batch, 8)["distortion"])
    assert torch.equal(weights(learner().model), weights(learner().model))


def test_evaluation_changes_nothing_and_does_not_depend_on_how_images_are_cut():
    found, batch = learner("objective.num_samples=2"), binary_batch(100)
    before = weights(found.model)
    whole = found.evaluate(batch, 0, 0)
    parts = [found.evaluate(batch.part(a, b), a, 0) for a, b in ((0, 70), (70, 100))]
    for name in ("loss", "elbo", "distortion", "rate"):
        assert (0.7 * parts[0][name] + 0.3 * parts[1][name]).item() == pytest.approx(whole[name].item(), rel=1e-5)
        assert not whole[name].requires_grad
    assert torch.equal(weights(found.model), before)
    assert all(p.grad is None for p in found.parameters)


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
def test_the_reported_elbo_has_beta_1_whatever_is_optimised(beta):
    scalars = update(learner(f"beta={beta}"), binary_batch(10), 0)
    assert scalars["elbo"].item() == pytest.approx(-(scalars["distortion"] + scalars["rate"]).item())
    assert scalars["loss"].item() == pytest.approx((scalars["distortion"] + beta * scalars["rate"]).item())


def test_scalars_are_of_the_weights_before_the_step():
    found, batch = learner("lr=0.1"), binary_batch(10)
    trace = found.model(batch, Rng(0, "train", 3))
    assert torch.allclose(update(found, batch, 3)["elbo"], trace.elbo().mean())


@pytest.mark.parametrize("name", choices("optimizer"))
def test_a_learner_goes_on_from_its_state(name):
    options = (f"optimizer={name}", "learner.ema=0.9", "lr_schedule=plateau", "lr_schedule.patience=1")
    whole, second = learner(*options), learner(*options)
    for step in range(4):
        if step == 2:
            whole.lr_schedule.observe(1.0)
            whole.lr_schedule.observe(1.0)
            second.load_state_dict(deepcopy(whole.state_dict()))
        update(whole, binary_batch(10, seed=step), step)
    for step in (2, 3):
        update(second, binary_batch(10, seed=step), step)
    assert torch.equal(weights(whole.model), weights(second.model))
    assert torch.equal(weights(whole.evaluated), weights(second.evaluated))
    assert whole.rates(3) == second.rates(3) == pytest.approx([5e-4])
