"""Numbers among the operands of a traced function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae_train.training.nodes import memories, name, new_input, replace, shared

if TYPE_CHECKING:
    from torch.fx import Graph, Node

OF_TWO = {f"{name}.{kind}": getattr(torch, name) for name in ("add", "mul", "sub") for kind in ("Scalar", "Tensor")}
"""Operations whose second operand may be a number, and what takes a tensor too."""

OF_MANY = {"_foreach_add_.Scalar": torch._foreach_add_}
"""An optimiser's way to count its steps, and what takes a list of tensors too."""


def drop_ones(graph: Graph) -> None:
    """Takes out multiplications by 1, of which autograd makes some."""
    taken = shared(graph)
    for node in list(graph.nodes):
        if name(node) in ("mul.Scalar", "mul.Tensor") and node.args[1] == 1:
            x = node.args[0]
            if _kind(x) == _kind(node) and taken.isdisjoint(memories(node) | memories(x)):
                replace(node, x)


def _kind(node: Node) -> tuple[torch.dtype, tuple[int, ...]]:
    """Type and layout; a product of what was expanded is laid out in full."""
    value = node.meta["value"]
    return value.dtype, value.stride()


def numbers_as_inputs(graph: Graph) -> list[Tensor]:
    """Makes tensors of operands that are numbers, and inputs of these; returns the new inputs.

    PyTorch makes a tensor of such a number at every call, which takes as long as the multiplication. Where it computes
    in half precision the number has more digits than a tensor would, so it stays one.
    """
    inputs: dict[tuple[str, torch.dtype, torch.device], Node] = {}

    def given(number: float, value: Tensor) -> Node:
        key = (repr(number), value.dtype, value.device)  # 0.0 and -0.0 are two
        if key not in inputs:
            inputs[key] = new_input(graph, f"number_{len(inputs)}")
        return inputs[key]

    for node in list(graph.nodes):
        if len(node.args) != 2 or type(node.args[1]) not in (int, float):
            continue
        operand, number = node.args
        if name(node) in OF_TWO:
            value = node.meta["value"]
            if value.dtype in (torch.float32, torch.float64):
                node.target, node.args = OF_TWO[name(node)], (operand, given(number, value))
        elif name(node) in OF_MANY:
            node.target = OF_MANY[name(node)]
            node.args = (operand, [given(number, part.meta["value"]) for part in operand])
    return [torch.tensor(float(number), dtype=dtype, device=device) for number, dtype, device in inputs]
