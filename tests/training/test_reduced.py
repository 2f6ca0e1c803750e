from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vae_train.training.reduced import merge_views, reduced
from vae_train.training.traced import repeated, traced


def names(graph):
    """What is called, operations and bindings alike, without getitem."""
    called = [node.target for node in graph.nodes if node.op == "call_function"]
    return [getattr(target, "__name__", str(target)).split(".")[0] for target in called]


def left(function):
    """What a function calls once it is reduced."""
    graph, tensors = traced(function, bindings=True)
    reduced(graph, tensors)
    graph.lint()
    return names(graph)


def test_a_view_that_is_there_already_is_not_made_again():
    x = torch.randn(3, 4)
    graph, _ = traced(lambda: [(x + 1).t().t().detach() @ (x + 2).t()])
    assert names(graph).count("t") == 3
    merge_views(graph)
    graph.lint()
    assert names(graph) == ["add", "t", "add", "t", "mm"]


def test_views_that_differ_are_kept():
    x = torch.randn(4, 4)
    rows = x + 0
    expected = rows.t() @ rows[1:].t() + rows[:, :1] + rows[:, 1:2] + rows.view(2, 8)[:, :1].sum()
    run = repeated(lambda: [(y := x + 0).t() @ y[1:].t() + y[:, :1] + y[:, 1:2] + y.view(2, 8)[:, :1].sum()])
    assert torch.equal(run()[0], expected)


def test_the_same_memory_read_as_complex_numbers_is_another_view():
    x = torch.randn(3, dtype=torch.complex64)
    run = repeated(lambda: [(y := x * 1).conj() * y, torch.view_as_real(y)])
    assert torch.equal(run()[0], x.conj() * x)
    assert torch.equal(run()[1], torch.view_as_real(x))


def test_constants_are_computed_once():
    x = torch.randn(3, 4)

    def function():
        return [x * (torch.ones_like(x).sum() / 4 + torch.full((4,), 2.0).exp())]

    assert left(function) == ["mul"]
    run, expected = repeated(function), function()
    assert torch.equal(run()[0], expected[0])
    x.mul_(2)
    assert torch.equal(run()[0], 2 * expected[0])


def test_views_of_inputs_are_made_once_and_see_what_is_written():
    x, weight = torch.randn(2, 3), torch.randn(5, 3)

    def function():
        found = [x @ weight.t(), *[part.sum() for part in weight.split(2)]]
        return [*found, weight.add_(1)[0].sum()]

    assert left(function) == ["mm", "sum", "sum", "sum", "add_", "select", "sum"]
    run = repeated(function)
    for _ in range(2):
        first, theirs = weight.clone(), weight.clone().add_(1)
        found = run()
        assert torch.equal(weight, theirs)
        expected = [x @ first.t(), *[part.sum() for part in first.split(2)], theirs[0].sum()]
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    "function",
    [
        lambda: [torch.zeros(3).add_(1)],
        lambda: [torch.zeros(3).view(1, 3).add_(1)],
        lambda: [torch.zeros(3)[0].add_(1), torch.ones(2)],
        lambda: torch._foreach_add([torch.zeros(3)], 1),
    ],
)
def test_what_is_written_to_or_handed_out_is_made_anew(function):
    run = repeated(function)
    first = [tensor.clone() for tensor in run()]
    with torch.inference_mode():
        for tensor in run():
            tensor.add_(7)
    assert all(map(torch.equal, run(), first))


def test_random_numbers_are_no_constants():
    run = repeated(lambda: [torch.rand(3) + 1])
    assert not torch.equal(run()[0], run()[0])


def test_an_input_that_changes_is_no_constant():
    x = torch.zeros(3)
    run = repeated(lambda: [x.exp() + x.new_full((), 2.0)])
    assert run()[0].tolist() == [3, 3, 3]
    x.fill_(float("-inf"))
    assert run()[0].tolist() == [2, 2, 2]


def test_a_step_of_gradients_keeps_no_view_twice():
    layers = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    x, weights = torch.randn(6, 4), list(layers.parameters())

    def function() -> list[Tensor]:
        loss = layers(x).square().mean()
        return [loss.detach(), *torch.autograd.grad(loss, weights)]

    graph, _ = traced(function, bindings=True)
    before, after = names(graph), left(function)
    assert before.count("detach") > 0
    assert after.count("detach") == 0
    assert after.count("t") < before.count("t")
    assert all(map(torch.equal, repeated(function)(), function()))
