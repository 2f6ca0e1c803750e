"""What a traced function need not do at every call: what is there already, and what stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vae_train.training.counts import add_at_once
from vae_train.training.nodes import drop_unused, is_pure, is_view, memories, memory, name, new_input, replace, shared
from vae_train.training.numbers import drop_ones, numbers_as_inputs

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
    drop_ones(graph)
    drop_means_of_one(graph)
    merge_views(graph)
    join_views(graph)
    merge_calls(graph)
    drop_unused(graph)
    tensors = settle(graph, tensors)
    tensors = [*tensors, *numbers_as_inputs(graph)]
    return [*tensors, *add_at_once(graph, tensors)]


def drop_means_of_one(graph: Graph) -> None:
    """Makes views of means over a single number, as over one draw of z."""
    taken = shared(graph)
    for node in list(graph.nodes):
        if name(node) != "mean.dim" or node.kwargs or len(node.args) > 3:
            continue
        x: Any = node.args[0]
        mean, shape = node.meta["value"], list(node.meta["value"].shape)
        if x.meta["value"].numel() != mean.numel() or taken & (memories(node) | memories(x)):
            continue
        view = x.meta["value"].view(shape)
        if view.stride() == mean.stride():
            node.target, node.args = torch.reshape, (x, shape)
            node.meta = {"operation": torch.ops.aten.view.default, "value": view}


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
        if first is not node and is_view(node):
            replace(node, first)


def join_views(graph: Graph) -> None:
    """Lets a view of a view be one of what is below, and a sum have the shape that is made of it.

    The gradient of a bias keeps the dimension that it is summed over, and has a view without it.
    """
    for node in list(graph.nodes):
        if name(node) != "view.default":
            continue
        below: Any = node.args[0]
        if name(below) == "view.default":
            node.args = (below.args[0], node.args[1])
        elif _only_drops_dims(node, below):
            below.args, below.meta["value"] = below.args[:2], node.meta["value"]
            replace(node, below)


def _only_drops_dims(view: Node, total: Node) -> bool:
    """Whether a view is what a sum would be had it not kept dimensions, and nothing else needs these."""
    if name(total) != "sum.dim_IntList" or total.args[2:] != (True,) or total.kwargs or len(total.users) > 1:
        return False
    x: Any = total.args[0]
    value, wanted = x.meta["value"].sum(total.args[1]), view.meta["value"]
    return (value.shape, value.stride()) == (wanted.shape, wanted.stride())


def merge_calls(graph: Graph) -> None:
    """Takes out calls that another makes too."""
    taken = shared(graph)
    seen: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if is_pure(node) and not any(taken & memories(part) for part in (node, *node.all_input_nodes)):
            first = seen.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if first is not node:
                replace(node, first)


def settle(graph: Graph, tensors: list[Tensor]) -> list[Tensor]:
    """Computes what is the same at every call, and makes it an input; returns the new inputs.

    That is what depends on inputs by their shapes alone, and views of inputs. These see what is written to their
    memory, as before.
    """
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    standing: dict[Node, Any] = dict(zip(inputs, tensors, strict=True))
    constant: set[Node] = set()
    taken = shared(graph)
    once = []
    for node in graph.nodes:
        if _is_constant(node, constant, taken):
            constant.add(node)
        elif not (is_view(node) and standing.keys() >= set(node.all_input_nodes)):
            continue
        standing[node] = _value(node, standing)
        once.append(node)
    return [*tensors, *_as_inputs(graph, once, standing)]


def _as_inputs(graph: Graph, nodes: list[Node], values: dict[Node, Any]) -> list[Tensor]:
    """Takes nodes out of a graph, and gives what is made of them their values as inputs; returns these."""
    out, found = set(nodes), list[Tensor]()
    for node in reversed(nodes):
        if not out.issuperset(node.users):
            given = new_input(graph, f"{node.name}_once", node.meta["value"])
            node.replace_all_uses_with(given, delete_user_cb=lambda user: user not in out)
            found.append(values[node])
    for node in reversed(nodes):
        graph.erase_node(node)
    return found


def _is_constant(node: Node, constant: set[Node], taken: set[int]) -> bool:
    """Whether a call gives the same every time, in memory of its own."""
    if not is_pure(node) or not taken.isdisjoint(memories(node)):
        return False
    return name(node).split(".")[0] in OF_A_SHAPE or constant >= set(node.all_input_nodes)


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
