"""The ELBO with balanced layers and a penalty on singular values."""

from __future__ import annotations

import pytest
import torch

from tests.support import BINARY, LAYERED, binary_batch, build_model, build_objective, compose, scalars_of
from vae_train.objective.balanced import MIN_RATE
from vae_train.rng import Rng

SETTLED = 10_000
"""A step after the rise of beta."""


def parts(*overrides):
    cfg = compose("model=ladder", *LAYERED["ladder"], *BINARY, "objective=balanced", *overrides)
    return build_model(cfg, (1, 8, 8), 2), build_objective(cfg)


def test_layers_are_balanced_in_training_while_beta_rises():
    model, objective = parts("objective.beta_schedule.start=0.5")
    trace = model(binary_batch(6), Rng(0, "x"))
    rates = torch.stack([latent.rate().mean() for latent in trace.latents])
    each = (rates + MIN_RATE) / torch.tensor([8.0, 8.0, 32.0])
    weights = 3 * each / each.sum()
    distortion = trace.distortion().mean()
    loss = scalars_of(objective, trace, 0)["loss"]
    assert loss.item() == pytest.approx((distortion + 0.5 * (weights * rates).sum()).item(), rel=1e-6)
    (found, *_) = torch.autograd.grad(loss, rates_of(trace), retain_graph=True)
    assert found.mean().item() == pytest.approx(0.5 * weights[0].item() / 6, rel=1e-5)


def rates_of(trace):
    return [latent.rate() for latent in trace.latents]


def test_afterwards_and_in_evaluation_the_loss_is_the_elbo():
    model, objective = parts("objective.beta_schedule.start=0.5")
    trace = model(binary_batch(6), Rng(0, "x"))
    assert scalars_of(objective, trace, SETTLED)["loss"].item() == pytest.approx(-trace.elbo().mean().item(), rel=1e-6)
    with torch.no_grad():
        trace = model(binary_batch(6), Rng(0, "x"))
        loss = scalars_of(objective, trace, 0)["loss"]
    assert loss.item() == pytest.approx((trace.distortion() + 0.5 * trace.rate()).mean().item(), rel=1e-6)


def test_every_layer_has_its_free_bits():
    model, objective = parts("objective.free_bits=0.7")
    trace = model(binary_batch(6), Rng(0, "x"))
    floored = sum(rate.mean().clamp(min=0.7) for rate in rates_of(trace))
    loss = scalars_of(objective, trace, SETTLED)["loss"]
    assert loss.item() == pytest.approx((trace.distortion().mean() + floored).item(), rel=1e-6)


def test_the_penalty_is_the_sum_of_the_largest_singular_values():
    model, objective = parts("objective.spectral=0.1")
    plain = parts()[1]
    trace = model(binary_batch(6), Rng(0, "x"))
    matrices = [p.flatten(1) for name, p in model.named_parameters() if name.endswith("weight") and p.dim() > 1]
    exact = sum(torch.linalg.matrix_norm(matrix, 2) for matrix in matrices).item()
    terms = scalars_of(objective, trace, SETTLED, model)
    assert terms["singular_values"].item() == pytest.approx(exact, rel=0.05)
    penalty = terms["loss"] - scalars_of(plain, trace, SETTLED, model)["loss"]
    assert penalty.item() == pytest.approx(0.1 * terms["singular_values"].item(), rel=1e-4)
    penalty.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
