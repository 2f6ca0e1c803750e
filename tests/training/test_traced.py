from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from vae_train.training.traced import binding, compiled, cut, traced

ADAM = {"fused": True, "lr": torch.tensor(0.1)}


def adam(weights):
    return torch.optim.Adam(weights, **ADAM)


def moved(make=adam):
    """Weights, what moves them towards a target that can be changed, and the target."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4))]
    target = torch.randn(4)
    optimizer = make(weights)

    def step():
        loss = ((weights[0].sum(0) * weights[1] - target) ** 2).sum()
        for p, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            p.grad = gradient.contiguous()  # as fused kernels take for granted
        optimizer.step()
        return [loss.detach(), *(p.grad for p in weights)]

    step()  # makes the optimiser's state
    return weights, step, target


def test_nothing_is_executed_by_tracing():
    count = torch.zeros(3)
    graph, tensors = traced(lambda: [count.add_(1)])
    assert count.tolist() == [0, 0, 0]
    assert [t.data_ptr() for t in tensors] == [count.data_ptr()]
    assert sum(node.op == "placeholder" for node in graph.nodes) == 1


def test_tensors_are_read_and_changed_where_they_are_and_numbers_are_frozen():
    count, by, number = torch.zeros(3), torch.ones(()), [10.0]
    run = compiled(lambda: [count.add_(by * number[0]) * 2])
    assert run()[0].tolist() == [20, 20, 20]
    by.fill_(2.0)
    number[0] = 1000.0
    assert run()[0].tolist() == [60, 60, 60]
    assert count.tolist() == [30, 30, 30]


@pytest.mark.parametrize(
    "make",
    [
        adam,
        partial(torch.optim.SGD, momentum=0.5, **ADAM),
        lambda weights: torch.optim.Adam([{"params": [w]} for w in weights], **ADAM),
    ],
    ids=["adam", "sgd", "two groups"],
)
def test_fused_kernels_are_called_with_what_was_compiled(make):
    ours, step, target = moved(make)
    run = compiled(step)
    theirs, plain, other = moved(make)
    for _ in range(4):
        torch.testing.assert_close(run(), plain(), rtol=1e-5, atol=1e-6)
        for t in (target, other):
            t.mul_(1.5)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_gradient_may_be_a_tensor_that_was_there_before():
    weight, constant = nn.Parameter(torch.zeros(4)), torch.arange(4.0)
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(1.0), fused=True)

    def step():
        (weight.grad,) = torch.autograd.grad(weight, [weight], constant)
        optimizer.step()
        return [weight.grad]

    run = compiled(step)
    weight.grad = None
    assert run()[0].tolist() == [0, 1, 2, 3]
    run()
    assert weight.tolist() == [0, -2, -4, -6]


def test_what_depends_on_a_value_cannot_be_compiled():
    value = torch.ones(())
    with pytest.raises(Exception, match="_local_scalar_dense"):
        compiled(lambda: [value * value.item()])
    assert value == 1


def test_a_constant_is_made_anew_every_time():
    run = compiled(lambda: [torch.tensor([1.0, 2.0]).add_(1)])
    assert run()[0].tolist() == run()[0].tolist() == [2.0, 3.0]


def test_weights_that_are_used_after_the_kernels_are_an_error():
    weights, step, _ = moved()
    graph, _ = traced(lambda: [*step(), weights[0] * 2])
    with pytest.raises(RuntimeError, match="weights are used after"):
        cut(graph)


def test_generated_code_calls_what_a_binding_is():
    """`torch.split` of Python has the name of the function in C that it calls, and its place in generated code."""
    from torch.fx.node import _get_qualified_name

    found = set()
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        if name.startswith("aten::") and hasattr(torch.ops.aten, packet):
            found.add(binding(getattr(getattr(torch.ops.aten, packet), overload or "default")))
    found.discard(None)
    assert len(found) > 500
    assert all(eval(_get_qualified_name(called)) is called for called in found)
