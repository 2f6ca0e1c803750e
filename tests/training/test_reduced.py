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


def test_a_transposed_matrix_that_nobody_needs_is_not_made():
    x = torch.randn(3, 4)
    assert left(lambda: [(x + 1).t().t() @ x.t()]) == ["add", "mm"]


def test_a_view_of_a_view_is_one_view():
    x = torch.randn(3, 4)

    def function():
        return [(x + 1).view(2, 6).view(4, 3) @ x]

    assert left(function) == ["add", "reshape", "mm"]
    assert torch.equal(repeated(function)()[0], function()[0])


@pytest.mark.parametrize(
    ("shape", "dims", "kept"),
    [((4,), [0], False), ((4, 1), [0], True), ((3,), [1], False), ((1,), [0, 1], True), ((), [0, 1], False)],
)
def test_a_sum_keeps_no_dimension_that_a_view_takes_away(shape, dims, kept):
    x = torch.randn(3, 4)

    def function():
        return [x.exp().sum(dims, keepdim=True).view(shape)]

    assert left(function) == ["exp", "sum", *["reshape"] * kept]
    assert torch.equal(repeated(function)()[0], function()[0])


def test_a_sum_whose_dimensions_somebody_needs_keeps_them():
    x = torch.randn(3, 4)

    def function():
        total = x.exp().sum([0], keepdim=True)
        return [total.view(4), total @ x.t()]

    assert left(function) == ["exp", "sum", "reshape", "mm"]
    assert all(map(torch.equal, repeated(function)(), function()))


def test_a_sum_that_is_written_to_is_computed_anew():
    def function():
        return [torch.ones(3, 4).sum([0], keepdim=True).view(4).view(2, 2).add_(1)]

    run = repeated(function)
    assert torch.equal(run()[0], function()[0])
    assert torch.equal(run()[0], function()[0])


@pytest.mark.parametrize(
    ("shape", "args"),
    [
        ((1, 4), (0,)),
        ((1, 4), (0, True)),
        ((4, 1), (-1,)),
        ((1, 4, 1), ([0, 2],)),
        ((1, 1), ([0, 1],)),
        ((1, 1), ([],)),
    ],
)
def test_a_mean_over_one_number_is_a_view(shape, args):
    x = torch.randn(shape)

    def function():
        return [x.exp().mean(*args).neg()]

    assert [called for called in left(function) if called != "reshape"] == ["exp", "neg"]
    assert torch.equal(repeated(function)()[0], function()[0])


@pytest.mark.parametrize(
    "mean",
    [
        lambda x: x.mean(0),
        lambda x: x.mean([0, 2]),
        lambda x: x[:1].mean([0, 1]),
        lambda x: x[:1].mean(0, dtype=torch.float64),
        lambda x: x[:1].transpose(1, 2).mean(0),
        lambda x: x[:1, :1, :1].mean(),
    ],
)
def test_a_mean_over_several_numbers_or_of_another_kind_is_computed(mean):
    x = torch.randn(2, 3, 4)

    def function():
        return [mean(x.exp()).neg()]

    assert "mean" in left(function)
    (found,), (expected,) = repeated(function)(), function()
    assert torch.equal(found, expected)
    assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())


def test_a_mean_over_one_number_that_is_handed_out_or_written_to_is_computed():
    x = torch.randn(1, 3)

    def function():
        before = x.mean(0)
        x.add_(1)
        return [y := x.exp(), y.mean(0), before.neg(), (z := x.mean(0)).add_(1), z.neg()]

    assert left(function).count("mean") == 3
    run, start = repeated(function), x.clone()
    found = run()
    x.copy_(start)
    assert all(map(torch.equal, found, function()))


def test_what_was_computed_already_is_not_computed_again():
    x, y = torch.randn(3), torch.randn(3)

    def function():
        return [(x * y).exp() + (x * y).exp() * (x - 1), torch.stack([x + 1, x + 1])]

    assert left(function) == ["mul", "exp", "sub", "mul", "add", "add", "stack"]
    assert all(map(torch.equal, repeated(function)(), function()))


def test_calls_that_differ_or_do_something_are_both_made():
    x = torch.zeros(3)

    def function():
        before = x.exp()
        torch._foreach_add_([x], 1)
        return [x.exp() - before, x.sum(dtype=torch.float64) + x.sum(), x.double() * 1 + x * 1]

    run = repeated(function)
    x.zero_()
    found = run()
    x.zero_()
    assert all(map(torch.equal, found, function()))


def test_numbers_that_are_drawn_twice_are_drawn_twice():
    x = torch.zeros(100)
    first, second = repeated(lambda: [torch.rand_like(x) + 1, torch.rand_like(x) + 1])()
    assert not torch.equal(first, second)


def test_two_that_are_handed_out_are_two():
    x = torch.randn(3)
    first, second = repeated(lambda: [x.exp(), x.exp()])()
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, second)


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
