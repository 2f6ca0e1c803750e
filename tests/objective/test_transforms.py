"""Objectives state what they can be: compiled whole, stacked by vmap, computed in float64 and after bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from tests.support import (
    SMALL,
    binary_batch,
    build_learner,
    build_model,
    build_objective,
    choices,
    compose,
    locate,
    run,
    scalars_of,
    update,
)
from vae_train.rng import FixedNoise, Rng

BATCH = 6
QUICK = {
    "factor_vae": ("objective.hidden=[8]",),
    "wae_gan": ("objective.hidden=[8]",),
    "miwae": ("objective.num_samples=4", "objective.groups=2", "objective.gradient=stl"),
    "piwae": ("objective.num_samples=4", "objective.groups=2", "objective.gradient=dreg"),
}


def supporting(what):
    return [
        name
        for name in choices("objective")
        if what in locate(compose(f"objective={name}").objective._target_).capabilities
    ]


def composed(name, *more):
    return compose(*SMALL, f"objective={name}", *QUICK.get(name, ()), *more)


class Asked(Rng):
    """A source of noise that records what it returned."""

    def __init__(self, seed):
        super().__init__(seed, "x")
        self.given = []

    def _take(self, make, shape, dtype):
        self.given.append(super()._take(make, shape, dtype))
        return self.given[-1]


def noise_of(model, objective, seed):
    rng = Asked(seed)
    run(model, objective, binary_batch(BATCH), rng, 3)
    return rng.given


@pytest.mark.parametrize("name", supporting("vmap"))
def test_stacked_models_have_the_gradients_of_each(name):
    cfg = composed(name)
    objective, batch = build_objective(cfg), binary_batch(BATCH)
    models = [build_model(compose(*SMALL, f"seed={seed}"), (1, 8, 8), 2) for seed in range(2)]
    noise = [noise_of(model, objective, i) for i, model in enumerate(models)]

    def loss(parameters, buffers, *given):
        rng = FixedNoise(given)
        trace = functional_call(models[0], (parameters, buffers), (batch, rng, objective.num_samples))
        return scalars_of(objective, trace, 3, rng=rng)["loss"]

    stacked = [torch.stack(numbers) for numbers in zip(*noise, strict=True)]
    gradients, losses = vmap(grad_and_value(loss))(*stack_module_state(models), *stacked)
    for i, model in enumerate(models):
        alone = run(model, objective, batch, FixedNoise(noise[i]), 3)["loss"]
        alone.backward()
        assert torch.allclose(losses[i], alone, rtol=1e-5)
        for key, parameter in model.named_parameters():
            assert torch.allclose(gradients[key][i], parameter.grad, atol=1e-4, rtol=1e-3), key


@pytest.mark.slow
@pytest.mark.parametrize("name", supporting("compile"))
def test_model_and_objective_compile_to_one_graph(name):
    cfg = composed(name)
    model, objective, batch = build_model(cfg, (1, 8, 8), 2), build_objective(cfg), binary_batch(BATCH)
    noise = noise_of(model, objective, 0)

    def loss(x, noise, step):
        return run(model, objective, type(batch)(x), FixedNoise(noise), step)["loss"]

    torch.compiler.reset()
    step = torch.tensor(3)
    eager, fast = loss(batch.x, noise, step), torch.compile(loss, fullgraph=True)(batch.x, noise, step)
    expected, found = (torch.autograd.grad(value, list(model.parameters())) for value in (eager, fast))
    assert fast.item() == pytest.approx(eager.item(), rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4, rtol=1e-3) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", supporting("float64"))
def test_losses_are_as_precise_as_the_model(name):
    cfg = composed(name)
    model, objective = build_model(cfg, (1, 8, 8), 2).double(), build_objective(cfg)
    batch = binary_batch(BATCH)
    terms = run(model, objective, type(batch)(batch.x.double()), Rng(0, "x"), 3)
    assert terms["loss"].dtype == torch.float64


@pytest.mark.parametrize("name", supporting("bf16"))
def test_losses_after_bfloat16_networks_are_near(name):
    found = []
    for precision in ("bfloat16", "float32"):
        cfg = composed(name, f"precision={precision}")
        found.append(update(build_learner(cfg, build_model(cfg, (1, 8, 8), 2)), binary_batch(BATCH), 0)["loss"])
    assert found[0].dtype == torch.float32
    assert found[0].item() == pytest.approx(found[1].item(), rel=0.05)
