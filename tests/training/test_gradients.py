from __future__ import annotations

import pytest
import torch

from tests.support import binary_batch, choices, inputs, small_run
from tests.training.examples import OBJECTIVES
from tests.training.execution.test_compiled import compilable
from vae_train.training.gradients import (
    EagerGradients,
    functional_gradients,
    with_layout_of,
)


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("name", compilable())
def test_functional_gradients_equal_those_of_autograd(name, share):
    _, learner, _ = small_run(f"objective={name}", *OBJECTIVES.get(name, ()))
    module, eager = learner.module, EagerGradients(learner.module)
    batch = binary_batch(12)
    expected = eager(inputs(learner, batch, 20), share)
    present = {n for n, g in enumerate(expected.gradients) if g is not None}
    targets = {loss: [n for n in numbers if n in present] for loss, numbers in eager.targets.items()}
    pure = functional_gradients(module, targets, share)
    parameters, buffers = [p.detach() for p in module.parameters()], list(module.buffers())
    gradients, scalars, statistics = pure(parameters, buffers, inputs(learner, batch, 20))
    assert {n for n, g in enumerate(gradients) if g is not None} == present
    for found, exact in zip(gradients, expected.gradients, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scalars, expected.scalars)
    torch.testing.assert_close(tuple(statistics), tuple(expected.statistics))


def test_every_objective_is_tested_unless_it_cannot_be_compiled():
    assert set(choices("objective")) - set(compilable()) <= {"rae", "vae_gan", "first_stage"}


def test_a_gradient_has_the_layout_of_its_parameter():
    p = torch.nn.Parameter(torch.ones(3, 2).t())  # in another layout than usual
    loss = (p.sum(0)[:1].expand(5) * torch.arange(5.0)).sum()
    (gradient,) = torch.autograd.grad(loss, [p])
    gradient = with_layout_of(p, gradient)
    assert gradient.stride() == p.stride()
    assert gradient.tolist() == [[10.0, 0.0, 0.0]] * 2
