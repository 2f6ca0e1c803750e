from __future__ import annotations

import pytest
import torch

from tests.support import SMALL, binary_batch, build_model, build_objective, choices, compose
from vae_train.draws import Draw
from vae_train.objective.elbo import ELBO
from vae_train.schedules import ConstantBeta, LinearBeta


@pytest.fixture(scope="module")
def trace():
    return build_model(compose(*SMALL), (1, 8, 8), 2)(binary_batch(6), Draw(0, "x"), 3)


@pytest.mark.parametrize("schedule", choices("objective/beta_schedule"))
@pytest.mark.parametrize("name", choices("objective"))
def test_every_objective_returns_scalars_with_a_differentiable_loss(name, schedule):
    cfg = compose(*SMALL, f"objective={name}", f"objective/beta_schedule={schedule}")
    objective = build_objective(cfg)
    model = build_model(cfg, (1, 8, 8), 2)
    for step in (0, 5, torch.tensor(5), 10_000):
        terms = objective(model(binary_batch(6), Draw(0, "x"), objective.num_samples), step)
        assert all(value.shape == () and value.isfinite() for value in terms.values())
    terms["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_loss_is_distortion_plus_beta_times_rate(trace, beta):
    terms = ELBO(beta, ConstantBeta(10.0), 3)(trace, 0)
    assert torch.allclose(terms["loss"], trace.distortion().mean() + beta * trace.rate().mean())
    assert terms["beta"] == beta


def test_at_beta_1_the_loss_is_the_negative_elbo(trace):
    assert torch.allclose(ELBO(1.0, ConstantBeta(10.0), 3)(trace, 0)["loss"], -trace.elbo().mean())


def test_the_schedule_multiplies_beta(trace):
    objective = ELBO(4.0, LinearBeta(10.0, warmup=2.0, start=0.0), 3)
    for step, beta in ((0, 0.0), (5, 1.0), (20, 4.0), (99, 4.0)):
        terms = objective(trace, step)
        assert terms["beta"].item() == pytest.approx(beta)
        assert torch.allclose(terms["loss"], trace.distortion().mean() + beta * trace.rate().mean())


def test_an_int_and_a_tensor_step_give_the_same_loss(trace):
    objective = ELBO(4.0, LinearBeta(10.0, warmup=2.0, start=0.0), 3)
    assert torch.equal(objective(trace, 7)["loss"], objective(trace, torch.tensor(7))["loss"])
