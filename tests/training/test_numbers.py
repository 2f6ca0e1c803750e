from __future__ import annotations

import pytest
import torch

from vae_train.training.numbers import drop_ones, numbers_as_inputs
from vae_train.training.traced import repeated, traced

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8)
NUMBERS = (3, 1, -1, 0.1, 1 / 255, -0.0, 0.0, float("inf"), float("nan"))


def same(one, other):
    """Equal bit by bit, but for which NaN it is."""
    bits = torch.equal(one.signbit(), other.signbit()) if one.is_floating_point() else True
    return one.dtype == other.dtype and bits and torch.equal(one.nan_to_num(7), other.nan_to_num(7))


def operands(function):
    """Second arguments that are numbers, once those that can be are inputs."""
    graph, _ = traced(function, bindings=True)
    given = numbers_as_inputs(graph)
    graph.lint()
    left = [n.args[1] for n in graph.nodes if len(n.args) > 1 and type(n.args[1]) in (int, float)]
    return left, [value.item() for value in given]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_number_that_became_a_tensor_gives_the_same_bits(dtype, number):
    x = torch.tensor([-3, -0.0, 0, 1 / 3, 1, 1000]).to(dtype)

    def function():
        scalar = x[3] * number
        return [x * number, x + number, x - number, scalar + x, torch.sub(x, number, alpha=2), scalar]

    with torch.inference_mode():
        expected = function()
    assert all(map(same, repeated(function)(), expected))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numbers_are_made_tensors_once(dtype):
    x = torch.ones(3, dtype=dtype)
    left, given = operands(lambda: [x * 0.5 + 1, x * 0.5 - 1, x / 3])
    assert left == [3]
    assert given == [0.5, 1]
    assert list(map(str, operands(lambda: [x + 0.0 + -0.0 + 0.0])[1])) == ["0.0", "-0.0"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_a_number_that_would_be_rounded_stays_one(dtype):
    x = torch.ones(3, dtype=dtype)
    assert operands(lambda: [x * 3]) == ([3], [])


def test_what_counts_many_things_takes_its_number_as_a_tensor():
    counts = [torch.zeros(()), torch.zeros(2, dtype=torch.float64)]

    def function():
        torch._foreach_add_(counts, 1)
        return []

    assert operands(function) == ([], [1, 1])
    run = repeated(function)
    run(), run()
    assert [count.tolist() for count in counts] == [2.0, [2.0, 2.0]]


def multiplications(function):
    graph, _ = traced(function, bindings=True)
    drop_ones(graph)
    graph.lint()
    return sum(node.name.startswith("mul") for node in graph.nodes)


def test_a_multiplication_by_one_is_left_out():
    x = torch.randn(3)
    assert multiplications(lambda: [(x * 1).exp() + (1.0 * x).exp()]) == 0


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: [x * 1],
        lambda x, y: [(x * 1).add_(1)],
        lambda x, y: [(x * 1).view(3).add_(1)],
        lambda x, y: [(x * 1).exp() + x.add_(1)],
        lambda x, y: [(y * 1.0).exp()],
        lambda x, y: [(y * 1.0).sum()],
        lambda x, y: [(x.view(3, 1).expand(3, 2) * 1).view(6).exp()],
        lambda x, y: [(x * 2).exp()],
    ],
)
def test_a_multiplication_is_kept_where_its_memory_type_or_layout_is_needed(function):
    x, y = torch.arange(3.0), torch.arange(3)
    assert multiplications(lambda: function(x, y)) == 1
    run, expected = repeated(lambda: function(x, y)), function(x.clone(), y.clone())
    assert all(map(same, run(), expected))
