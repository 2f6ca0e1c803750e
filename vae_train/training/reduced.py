"""What a traced function need not do at every call: views that are there already, and what stays the same."""

from __future__ import annotations

from operator import getitem
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from torch.fx import Graph, Node

OF_A_SHAPE = ("full_like", "ones_like", "zeros_like", "new_full", "new_ones", "new_zeros")
"""Operations that ask a tensor for its shape alone."""


def reduced(graph: Graph, tensors: list[Tensor]) -> list[Tensor]:
    """Takes out of a graph what need not be repeated, changing no number that it computes.

    Args:
        graph: see `vae_train.training.traced.traced`; what stays the same becomes another of its inputs.
        tensors: the inputs.

    Returns:
        The new inputs.
    """
    merge_views(graph)
    return settle(graph, tensors)


def merge_views(graph: Graph) -> None:
    """Takes out views that are there already: the same part of the same memory is the same tensor.

    Autograd makes many of them: what it saves is detached, and a transposed matrix is transposed once more.
    """
    seen: dict[Any, Node] = {}
    for node in list(graph.nodes):
        value = node.meta.get("value")
        if not isinstance(value, Tensor):
            continue
        kind = (value.dtype, value.is_conj(), value.is_neg())
        place = (memory(value), value.shape, value.stride(), value.storage_offset(), *kind)
        first = seen.setdefault(place, node)
        if first is not node and _is_view(node):
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def settle(graph: Graph, tensors: list[Tensor]) -> list[Tensor]:
    """Computes what is the same at every call, and makes it an input; returns the new inputs.

    That is what depends on inputs by their shapes alone, and views of inputs. These see what is written to their
    memory, as before.
    """
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    standing: dict[Node, Any] = dict(zip(inputs, tensors, strict=True))
    constant: set[Node] = set()
    shared = _shared(graph)
    once = []
    for node in graph.nodes:
        if _is_constant(node, constant, shared):
            constant.add(node)
        elif not (_is_view(node) and standing.keys() >= set(node.all_input_nodes)):
            continue
        standing[node] = _value(node, standing)
        once.append(node)
    return [*tensors, *_as_inputs(graph, once, standing)]


def _as_inputs(graph: Graph, nodes: list[Node], values: dict[Node, Any]) -> list[Tensor]:
    """Takes nodes out of a graph, and gives what is made of them their values as inputs; returns these."""
    first = next(node for node in graph.nodes if node.op != "placeholder")
    out, found = set(nodes), list[Tensor]()
    for node in reversed(nodes):
        if not out.issuperset(node.users):
            with graph.inserting_before(first):
                given = graph.placeholder(f"{node.name}_once")
            node.replace_all_uses_with(given, delete_user_cb=lambda user: user not in out)
            found.append(values[node])
    for node in reversed(nodes):
        graph.erase_node(node)
    return found


def _shared(graph: Graph) -> set[int]:
    """Memory that is written to or handed out, and so no constant's."""
    handed = (node for node in graph.nodes if node.op == "output" or _mutates(node))
    return {place for node in handed for used in node.all_input_nodes for place in _memories(used)}


def _is_view(node: Node) -> bool:
    operation = node.meta.get("operation")
    return node.target is getitem or (operation is not None and operation.is_view)


def _mutates(node: Node) -> bool:
    operation = node.meta.get("operation")
    return operation is not None and operation._schema.is_mutable


def _is_constant(node: Node, constant: set[Node], shared: set[int]) -> bool:
    """Whether a call gives the same every time, in memory of its own."""
    if node.op != "call_function" or _mutates(node) or not shared.isdisjoint(_memories(node)):
        return False
    operation = node.meta["operation"]
    if operation is not None:
        if torch.Tag.nondeterministic_seeded in operation.tags:
            return False
        if operation.overloadpacket.__name__ in OF_A_SHAPE:
            return True
    return constant >= set(node.all_input_nodes)


def _value(node: Node, values: dict[Node, Any]) -> Any:
    """What an operation gives, whose inputs have values or are asked for their shape alone."""

    def known(used: Node) -> Any:
        return values[used] if used in values else _empty(used.meta["value"])

    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), known)
    assert callable(node.target)
    with torch.inference_mode():
        return node.target(*args, **kwargs)


def _empty(like: Tensor) -> Tensor:
    """A tensor with the shape and the layout of another."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)


def _memories(node: Node) -> set[int]:
    return {memory(leaf) for leaf in tree_leaves(node.meta.get("value")) if isinstance(leaf, Tensor)}


def memory(tensor: Tensor) -> int:
    """What tells one memory from another; while a step is traced there are no addresses."""
    return tensor.untyped_storage()._cdata
