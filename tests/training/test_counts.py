from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from vae_train.training.counts import lay_side_by_side
from vae_train.training.nodes import name
from vae_train.training.reduced import reduced
from vae_train.training.traced import repeated, traced


def trained(*lrs, steps=2, kind=torch.optim.Adam, **settings):
    """An optimiser that took some steps, with two parameters in a group for every learning rate."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2)) for _ in range(2)], "lr": lr} for lr in lrs]
    optimizer = kind(groups, **settings)
    for group in groups:
        for p in group["params"]:
            p.grad = torch.ones(2)
    for _ in range(steps):
        optimizer.step()
    return optimizer


def counts(optimizer):
    return [state["step"] for state in optimizer.state.values()]


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def additions(function):
    """Of what is called once it is reduced, whether many numbers are added to, or one tensor."""
    graph, tensors = traced(function, bindings=True)
    given = reduced(graph, tensors)
    graph.lint()
    assert len(given) == sum(node.op == "placeholder" for node in graph.nodes)
    return [called for n in graph.nodes if (called := name(n).split(".")[0]).endswith("add_")]


@pytest.mark.parametrize("lrs", [(0.1,), (0.1, 0.2)])
def test_the_counts_of_an_optimizer_are_added_to_at_once(lrs):
    optimizer = trained(*lrs, fused=True)
    lay_side_by_side(optimizer)

    def function():
        with torch.no_grad():
            for group in optimizer.param_groups:
                torch._foreach_add_([optimizer.state[p]["step"] for p in group["params"]], 1)
        return []

    assert additions(function) == ["add_"] * len(lrs)
    run = repeated(function)
    assert counts(optimizer) == [2.0] * 2 * len(lrs)
    run(), run()
    assert counts(optimizer) == [4.0] * 2 * len(lrs)


@pytest.mark.parametrize("settings", [{"fused": True}, {"foreach": True}, {"foreach": False}])
def test_an_optimizer_goes_on_whose_counts_lie_side_by_side(settings):
    one, other = trained(0.1, 0.2, **settings), trained(0.1, 0.2, **settings)
    lay_side_by_side(one)
    lay_side_by_side(one)
    state = deepcopy(one.state_dict())
    for optimizer in (one, other):
        optimizer.step()
    assert counts(one) == counts(other) == [3.0] * 4
    assert [s["step"] for s in state["state"].values()] == [2.0] * 4
    assert all(map(torch.equal, parameters(one), parameters(other)))
    one.load_state_dict(state)
    assert counts(one) == [2.0] * 4


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimizer_without_counts_is_left_alone(kind):
    optimizer = trained(0.1, steps=1 if kind is torch.optim.SGD else 0, kind=kind)
    lay_side_by_side(optimizer)
    assert all("step" not in state for state in optimizer.state.values())


def of_one(*numbers: int, length: int = 4) -> list[torch.Tensor]:
    """Single numbers of one tensor."""
    whole = torch.zeros(length)
    return [whole[number] for number in numbers]


@pytest.mark.parametrize(
    "numbers",
    [
        [torch.zeros(()), torch.zeros(())],
        of_one(0, 2),
        of_one(1, 0),
        of_one(0, 0),
        [*of_one(0), *of_one(1)],
        [(half := torch.zeros(4, dtype=torch.float16))[0], half.view(torch.bfloat16)[1]],
        [torch.zeros(1), torch.zeros(1)],
        [torch.zeros(2)[0], torch.zeros(2, dtype=torch.float64)[0]],
        list(torch.zeros(3, 2).unbind()),
    ],
)
@pytest.mark.parametrize("added", [1, 0.5, True])
def test_what_does_not_lie_side_by_side_is_added_to_one_by_one(numbers, added):
    def function():
        torch._foreach_add_(numbers, added)
        return [torch.stack([number.double().sum() for number in numbers])]

    assert additions(function) == ["_foreach_add_"]
    run, expected = repeated(function), deepcopy(numbers)
    found = run()[0]
    torch._foreach_add_(expected, added)
    assert all(map(torch.equal, numbers, expected))
    assert found.tolist() == [number.sum() for number in expected]


@pytest.mark.parametrize("parts", [lambda x, y: [x[0], x[1]], lambda x, y: [x[0], x[1], y[2]]])
def test_what_is_computed_in_every_step_is_added_to_one_by_one(parts):
    x = torch.rand(4)

    def function():
        numbers = parts(y := x * 2, x)
        torch._foreach_add_(numbers, 1)
        return [y, x * 1]

    assert additions(function) == ["_foreach_add_"]
    run, start = repeated(function), x.clone()
    found = run()
    x.copy_(start)
    assert all(map(torch.equal, found, function()))


def test_something_else_than_a_number_is_added_as_it_is():
    numbers = of_one(0, 1)

    def function():
        torch._foreach_add_(numbers, [1.0, 2.0])
        torch._foreach_add_(numbers, True)
        return []

    assert additions(function) == ["_foreach_add_"] * 2
    repeated(function)()
    assert numbers == [2.0, 3.0]
