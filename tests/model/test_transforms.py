"""Models can be stacked with vmap and compiled whole, since their noise comes in from outside."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from tests.support import BINARY, binary_batch, build_model, build_objective, compose, run, scalars_of
from vae_train.rng import FixedNoise

BATCH, DIM, SAMPLES = 6, 10, 2


def default(seed=0):
    cfg = compose(*BINARY, f"seed={seed}", f"latent_dim={DIM}", f"objective.num_samples={SAMPLES}", "beta=0.5")
    return build_model(cfg, (1, 8, 8), 2), build_objective(cfg)


def test_gradients_of_stacked_models_equal_those_of_each():
    models = [default(seed)[0] for seed in range(3)]
    _, objective = default()
    batch, noise = binary_batch(BATCH), torch.randn(3, SAMPLES, BATCH, DIM)

    def loss(parameters, buffers, noise):
        trace = functional_call(models[0], (parameters, buffers), (batch, FixedNoise([noise]), SAMPLES))
        return scalars_of(objective, trace, 0)["loss"]

    gradients, losses = vmap(grad_and_value(loss))(*stack_module_state(models), noise)
    for i, model in enumerate(models):
        alone = run(model, objective, batch, FixedNoise([noise[i]]), 0)["loss"]
        alone.backward()
        assert torch.allclose(losses[i], alone, rtol=1e-5)
        for name, parameter in model.named_parameters():
            assert torch.allclose(gradients[name][i], parameter.grad, atol=1e-5, rtol=1e-5), name


def test_model_and_objective_compile_to_one_graph():
    model, objective = default()
    batch, noise = binary_batch(BATCH), torch.randn(SAMPLES, BATCH, DIM)

    def loss(x, noise, step):
        terms = run(model, objective, type(batch)(x), FixedNoise([noise]), step)
        return terms["loss"]

    torch.compiler.reset()
    # That generated code computes the same is tested on whole steps: tests/training/execution.
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    step = torch.tensor(3)
    eager, fast = loss(batch.x, noise, step), compiled(batch.x, noise, step)
    expected = torch.autograd.grad(eager, list(model.parameters()))
    found = torch.autograd.grad(fast, list(model.parameters()))
    assert fast.item() == pytest.approx(eager.item(), rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(expected, found, strict=True))
