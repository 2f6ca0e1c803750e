"""What can be told of the operations of a traced function; see `vae_train.training.traced.traced`."""

from __future__ import annotations

from operator import getitem
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from torch.fx import Graph, Node


def name(node: Node) -> str:
    """PyTorch's name of a node's operation, such as "mul.Tensor"; "" where there is none."""
    operation = node.meta.get("operation")
    return "" if operation is None else operation.__name__


def is_view(node: Node) -> bool:
    """Whether a node's value has the memory of another."""
    operation = node.meta.get("operation")
    return node.target is getitem or (operation is not None and operation.is_view)


def mutates(operation: Any) -> bool:
    """Whether an operation changes what it is given."""
    return operation is not None and operation._schema.is_mutable


def is_pure(node: Node) -> bool:
    """Whether a node is a call that does nothing but give the same for the same."""
    operation = node.meta.get("operation")
    if node.op != "call_function" or mutates(operation):
        return False
    return operation is None or torch.Tag.nondeterministic_seeded not in operation.tags


def memories(node: Node) -> set[int]:
    """The memories of a node's value."""
    return {memory(leaf) for leaf in tree_leaves(node.meta.get("value")) if isinstance(leaf, Tensor)}


def memory(tensor: Tensor) -> int:
    """What tells one memory from another; while a step is traced there are no addresses."""
    return tensor.untyped_storage()._cdata


def shared(graph: Graph) -> set[int]:
    """Memories that are written to or handed out."""
    handed = (node for node in graph.nodes if node.op == "output" or mutates(node.meta.get("operation")))
    return {place for node in handed for used in node.all_input_nodes for place in memories(used)}


def replace(node: Node, other: Node) -> None:
    """Takes a node out of its graph, and uses another in its place."""
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def drop_unused(graph: Graph) -> None:
    """Takes out calls whose value nobody asks for."""
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not node.users and not mutates(node.meta["operation"]):
            graph.erase_node(node)


def new_input(graph: Graph, title: str, value: Any = None) -> Node:
    """A further input, behind the others; `value` has its shape, where that is known."""
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        made = graph.placeholder(title)
    made.meta = {"operation": None, "value": value}
    return made
