"""Objectives with a critic, a state or a gradient of their own, in a learner."""

from __future__ import annotations

import pytest
import torch

from tests.support import SMALL, binary_batch, build_learner, build_model, choices, compose, run, scalars_of, update
from vae_train.objective.control_vae import ControlVAE
from vae_train.objective.geco import GECO
from vae_train.rng import Rng

CRITICS = {
    "factor_vae": ("objective.hidden=[8]",),
    "wae_gan": ("objective.hidden=[8]",),
    "first_stage": ("objective.channels=4", "objective.start_step=0", "objective.r1=1"),
    "vae_gan": ("objective.channels=4", "objective.start=0", "objective.r1=1"),
}
STATES = {"geco": (), "control_vae": ("objective.target=3",)}


def learner(name, *overrides):
    cfg = compose(*SMALL, f"objective={name}", *CRITICS.get(name, ()), *STATES.get(name, ()), *overrides)
    return build_learner(cfg, build_model(cfg, (1, 8, 8), 2))


def buffers(found):
    return {name: value.clone() for name, value in found.objective.state_dict().items()}


def gradients(loss, parameters):
    return torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)


@pytest.mark.parametrize("kind", ["hinge", "nonsaturating", None])
@pytest.mark.parametrize("name", CRITICS)
def test_each_player_follows_its_own_loss(name, kind):
    overrides = [f"objective.kind={kind}"] if name in ("vae_gan", "first_stage") and kind else []
    found, other = learner(name, *overrides), learner(name, *overrides)
    batch = binary_batch(6)
    update(found, batch, 3)
    terms = run(other.model, other.objective, batch, Rng(other.seed, "train", 3), 3)
    pairs = [("loss", found.model, other.model), ("critic_loss", found.objective, other.objective)]
    for loss, updated, same in pairs:
        for p, expected in zip(updated.parameters(), gradients(terms[loss], same.parameters()), strict=True):
            if expected is None:
                assert p.grad is None
            else:
                assert torch.allclose(p.grad, expected, rtol=1e-4, atol=1e-6)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in updated.parameters())
    assert any(g is not None and g.abs().sum() > 0 for g in gradients(terms["loss"], other.objective.parameters()))


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_has_a_learning_rate_of_its_own_or_that_of_the_model(name):
    assert learner(name, "lr=0.25", "objective.critic_lr=0.125").optimizer.base_rates == [0.25, 0.125]
    assert set(learner(name, "lr=0.25", "objective.critic_lr=null").optimizer.base_rates) == {0.25}


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_learns(name):
    found = learner(name, "optimizer=adam", "objective.critic_lr=1e-2", "lr=1e-6")
    with torch.no_grad():  # means that are neither independent nor those of the prior
        *_, last = found.model.encoder.parameters()
        last.add_(2.0)
        list(found.model.encoder.parameters())[-2].mul_(20.0)
    batch = binary_batch(32)
    first, *_, last = [update(found, batch, step)["critic_loss"] for step in range(60)]
    assert last < first - 0.05


@pytest.mark.parametrize("name", choices("objective"))
def test_a_resumed_run_is_the_uninterrupted_one(name):
    overrides = ("learner.ema=0.9", "objective/beta_schedule=linear") if name == "elbo" else ()
    whole, first, second = (learner(name, *overrides) for _ in range(3))
    batches = [binary_batch(6, seed=i) for i in range(6)]
    for step, batch in enumerate(batches):
        expected = update(whole, batch, step)
    for step in range(3):
        update(first, batches[step], step)
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        found = update(second, batches[step], step)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    states = [each.model.state_dict() | each.objective.state_dict() for each in (whole, second)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", choices("objective"))
def test_evaluation_is_finite_even_of_one_image_and_changes_nothing(name):
    found = learner(name)
    update(found, binary_batch(6), 0)
    before = buffers(found)
    for size in (1, 6):
        scalars = found.evaluate(binary_batch(size), 70, 20)
        assert all(value.isfinite() and not value.requires_grad for value in scalars.values())
    assert all(torch.equal(value, before[key]) for key, value in buffers(found).items())


@pytest.mark.parametrize("name", STATES)
def test_states_move_in_updates(name):
    found = learner(name)
    before = buffers(found)
    update(found, binary_batch(6), 0)
    assert any(not torch.equal(value, before[key]) for key, value in buffers(found).items())


def test_a_bound_with_a_gradient_of_its_own_trains_both_sides():
    found, other = (learner("piwae", "objective.num_samples=4", "objective.groups=2") for _ in range(2))
    batch = binary_batch(6)
    update(found, batch, 3)
    terms = run(other.model, other.objective, batch, Rng(other.seed, "train", 3), 3)
    for loss, part in (("loss", "decoder"), ("encoder_loss", "encoder")):
        expected = gradients(terms[loss], getattr(other.model, part).parameters())
        mine = [p.grad for p in getattr(found.model, part).parameters()]
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(mine, expected, strict=True))


def test_every_parameter_of_a_conditional_encoder_follows_the_encoders_loss():
    cfg = compose(*SMALL, "objective=piwae", "model.condition=label")
    model = build_model(cfg, (1, 8, 8), 2)
    names = {id(p): name for name, p in model.named_parameters()}
    mine = {names[id(p)] for p in model.inference_parameters()}
    assert {"condition.channel.weight", "condition.channel.bias"} <= mine
    assert not any(name.startswith(("decoder", "condition.prior")) for name in mine)


def test_the_multiplier_of_geco_follows_the_constraint():
    objective = GECO(1, target=10.0, decay=0.9, speed=0.01, limit=5.0)
    objective.update_state({"distortion": torch.tensor(20.0)})
    assert objective.constraint.item() == pytest.approx(10.0), "the first violation is the mean"
    assert objective.log_multiplier.item() == pytest.approx(0.1)
    objective.update_state({"distortion": torch.tensor(5.0)})
    assert objective.constraint.item() == pytest.approx(0.9 * 10 - 0.1 * 5)
    assert objective.log_multiplier.item() == pytest.approx(0.1 + 0.085)
    for _ in range(1000):
        objective.update_state({"distortion": torch.tensor(50.0)})
    assert objective.log_multiplier.exp().item() == pytest.approx(5.0)
    for _ in range(1000):
        objective.update_state({"distortion": torch.tensor(-50.0)})
    assert objective.log_multiplier.exp().item() == pytest.approx(0.2)


def test_the_loss_of_geco_is_the_lagrangian():
    found = learner("geco", "objective.target=30")
    found.objective.log_multiplier.fill_(1.5)
    trace = found.model(binary_batch(6), Rng(0, "x"), 1)
    terms = scalars_of(found.objective, trace, 0)
    multiplier = torch.tensor(1.5).exp()
    expected = trace.rate().mean() + multiplier * (trace.distortion().mean() - 30)
    assert torch.allclose(terms["loss"], expected)
    assert terms["beta"].item() == pytest.approx(1 / multiplier.item())


def controlled(target, steps=4000, **changes):
    """A rate that answers to beta as that of a VAE does, and the beta and rate that the controller ends at."""
    knobs = {"proportional": 0.01, "integral": 1e-3, "beta_min": 0.0, "beta_max": 10.0} | changes
    objective = ControlVAE(1, target, **knobs)
    for _ in range(steps):
        rate = 20.0 / (1.0 + objective.beta)
        objective.update_state({"rate": rate})
    return objective.beta.item(), rate.item()


@pytest.mark.parametrize("target", [5.0, 12.0])
def test_the_controller_drives_the_rate_to_its_target(target):
    beta, rate = controlled(target)
    assert rate == pytest.approx(target, rel=0.01)
    assert beta == pytest.approx(20 / target - 1, rel=0.02)


def test_the_controller_keeps_beta_within_its_bounds():
    assert controlled(25.0, beta_min=0.5)[0] == pytest.approx(0.5, abs=0.01)
    assert controlled(0.1, beta_max=3.0, steps=9000)[0] == pytest.approx(3.0)


def test_the_integral_does_not_wind_up():
    """After long out of reach, beta leaves its bound at once."""
    objective = ControlVAE(1, 5.0, proportional=0.0, integral=1e-2, beta_min=0.0, beta_max=2.0)
    for _ in range(10_000):
        objective.update_state({"rate": torch.tensor(50.0)})
    for _ in range(50):
        objective.update_state({"rate": torch.tensor(1.0)})
    assert objective.beta.item() < 0.1


def test_empty_bounds_are_refused():
    with pytest.raises(ValueError, match="beta_max=1 must be above beta_min=1"):
        ControlVAE(1, 5.0, 0.0, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"limit=0\.5"):
        GECO(1, 5.0, 0.9, 1.0, 0.5)
