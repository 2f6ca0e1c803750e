"""An optimiser's counts of its steps: a number for every parameter, each a tensor of its own."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vae_train.training.nodes import memory, name, new_input

if TYPE_CHECKING:
    from torch.fx import Graph


def lay_side_by_side(optimizer: torch.optim.Optimizer) -> None:
    """Moves the counts into one memory, so that one addition can count all, see `add_at_once`."""
    states = [state for state in optimizer.state.values() if isinstance(state.get("step"), Tensor)]
    counts = [state["step"] for state in states]
    if len({(count.dtype, count.device, count.shape) for count in counts}) == 1:
        together = torch.stack(counts)
        for number, state in enumerate(states):
            state["step"] = together[number]


def add_at_once(graph: Graph, tensors: list[Tensor]) -> list[Tensor]:
    """Makes one addition of what adds one number to many that lie side by side; returns the new inputs.

    PyTorch adds to them one after the other, which takes as long as a small matrix product.

    Args:
        graph: see `vae_train.training.traced.traced`; numbers are inputs of it.
        tensors: the inputs.
    """
    inputs = dict(zip((node for node in graph.nodes if node.op == "placeholder"), tensors, strict=True))
    found: list[Tensor] = []
    for node in list(graph.nodes):
        if name(node) != "_foreach_add_.Scalar" or node.users:
            continue
        operands: Any = node.args[0]
        added: Any = node.args[1]
        counts = [inputs[operand] for operand in operands if operand in inputs]
        if not isinstance(added, list) or len(counts) < len(operands) or not _are_side_by_side(counts):
            continue
        whole = new_input(graph, f"counts_{len(found)}")
        found.append(counts[0].as_strided((len(counts),), (1,)))
        with graph.inserting_before(node):
            made = graph.call_function(Tensor.add_, (whole, added[0]))
        made.meta = {"operation": torch.ops.aten.add_.Tensor, "value": None}
        graph.erase_node(node)
    return found


def _are_side_by_side(counts: list[Tensor]) -> bool:
    """Whether these are single numbers of one type, in one memory and one behind the other."""
    if any(count.dim() or count.dtype != counts[0].dtype for count in counts):
        return False
    offsets = [count.storage_offset() for count in counts]
    return len(set(map(memory, counts))) == 1 and all(after - before == 1 for before, after in pairwise(offsets))
