"""Functions as the tensor operations that they consist of: called one after the other, or compiled.

The Python around the operations is gone: modules, autograd, optimisers. What was a number or a choice when the function
was traced stays that; what shall change has to be a tensor. The tensors that the function works on stay the same ones,
and are changed in place where it does so.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from operator import getitem
from types import BuiltinFunctionType, MethodDescriptorType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only

from vae_train.training.nodes import drop_unused
from vae_train.training.reduced import reduced

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

QUICK: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.view.default: torch.reshape,  # a view where there can be one
    torch.ops.aten.split.Tensor: torch.unsafe_split,
}
"""What is called sooner than an operation's own binding, or has none, and does the same."""


def repeated(function: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
    """`function` without the Python around its operations, which are called one after the other.

    Raises:
        RuntimeError: what is done depends on the value of a tensor (among others).
    """
    from torch.fx import GraphModule

    graph, tensors = traced(function, bindings=True)
    tensors = reduced(graph, tensors)
    run = GraphModule(torch.nn.Module(), graph).forward

    def call() -> list[Tensor]:
        with torch.inference_mode():  # what autograd does is among the operations
            return list(run(*tensors))

    return call


def compiled(function: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
    """`function` as one compiled function, and an optimiser's fused kernels, which are called after it.

    These are faster than what a compiler makes of the same operations. `torch.compile` sees Python, and with every call
    makes sure that it has not changed: in a small step that takes as long as some of its matrix products.

    Raises:
        RuntimeError: what is done depends on the value of a tensor, or there is no compiler (among others).
    """
    from torch.fx import GraphModule

    graph, tensors = traced(function)
    kernels, count = cut(graph)
    module = GraphModule(torch.nn.Module(), graph)
    # They miss CUDA on a CPU, and say what they could not keep for the next run.
    for name in ("torch.utils.cpp_extension", "torch._inductor.standalone_compile"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch's own use of itself
        run = torch._inductor.standalone_compile(module, [*tensors], dynamic_shapes="from_example_inputs")

    def call() -> list[Tensor]:
        with torch.no_grad():
            found = list(run(*tensors))
            kernels.forward(*tensors, *found)
        return found[:count]

    return call


def traced(function: Callable[[], list[Tensor]], bindings: bool = False) -> tuple[Graph, list[Tensor]]:
    """The operations of a function as a graph, and the tensors that it works on, which are the graph's inputs.

    Nothing is executed. The `meta` of every node has its "operation" (PyTorch's; None of an input and of a part of a
    list) and its "value", which has a shape and no numbers.

    Args:
        function: returns tensors.
        bindings: name what Python calls for an operation, where there is such a thing, instead of the operation.

    Raises:
        RuntimeError: what is done depends on the value of a tensor (among others).
    """
    from torch.fx import Graph

    with Noting(bindings) as noted:
        found = function()
    graph = Graph()
    nodes: dict[int, Node] = {}

    def node(value: Any) -> Any:
        return nodes[id(value)] if isinstance(value, Tensor) else value

    def note(made: Node, value: Any, operation: Any = None) -> None:
        made.meta = {"operation": operation, "value": tree_map_only(Tensor, noted.fake, value)}
        if isinstance(value, Tensor):
            nodes[id(value)] = made
        elif isinstance(value, list | tuple):
            for number, part in enumerate(value):
                note(graph.call_function(getitem, (made, number)), part)

    for number, tensor in enumerate(noted.tensors):
        note(graph.placeholder(f"tensor_{number}"), tensor)
    for called, operation, args, kwargs, out in noted.calls:
        args, kwargs = tree_map(node, (args, kwargs))
        note(graph.call_function(called, args, kwargs), out, operation)
    graph.output([node(tensor) for tensor in found])
    drop_unused(graph)
    return graph, [tensor.detach() for tensor in noted.tensors]


class Call(NamedTuple):
    """An operation that was noted."""

    called: Callable[..., Any]
    operation: Any
    """Which of PyTorch's operations that is."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    """A tensor, several, or None."""


class Noting(TorchDispatchMode):
    """Notes the operations below autograd, and executes none.

    In the place of every tensor that was there before stands one that has a shape and no numbers. (PyTorch's own
    `make_fx` executes some operations in place on such tensors, as of 2.14.)

    Args:
        bindings: see `traced`.
    """

    def __init__(self, bindings: bool = False) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        super().__init__()
        self.tensors: list[Tensor] = []
        """What was there before, in the order in which it was met."""
        self.calls: list[Call] = []
        """All tensors are kept, so that each has an `id` of its own."""
        self._bindings, self._mode = bindings, FakeTensorMode()
        self._fakes: dict[int, Tensor] = {}
        self._known: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Notes one operation."""
        kwargs = kwargs or {}
        if func is torch.ops.aten.lift_fresh.default:
            func = torch.ops.aten.clone.default  # of a constant, which an operation in place must not change
        fakes, named = tree_map_only(Tensor, self.fake, (args, kwargs))
        with self._mode:
            called, out = self._call(func, fakes, named)
        out = tree_map_only(Tensor, lambda t: self._known.get(id(t), t), out)
        self.calls.append(Call(called, func, args, kwargs, out))
        return out

    def _call(self, operation: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """What is called for an operation, and what comes out."""
        called = binding(operation) if self._bindings else None
        if is_fused(operation):
            return called or operation, None
        if called is not None:
            with suppress(TypeError):  # it takes other arguments
                out = called(*args, **kwargs)
                return called, out if operation._schema.returns else None
        return operation, operation(*args, **kwargs)

    def fake(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor."""
        from torch._subclasses.fake_tensor import FakeTensor

        if isinstance(tensor, FakeTensor):
            return tensor
        if id(tensor) not in self._fakes:
            self.tensors.append(tensor)
            fake = self._mode.from_tensor(tensor.detach(), static_shapes=True)
            self._fakes[id(tensor)], self._known[id(fake)] = fake, tensor
        return self._fakes[id(tensor)]


def cut(graph: Graph) -> tuple[GraphModule, int]:
    """Takes the fused kernels of an optimiser out of a graph, and appends what they need to its outputs.

    Returns:
        The kernels, as a function of the graph's inputs and outputs; how many outputs there were before.

    Raises:
        RuntimeError: what the kernels change is used after them.
    """
    from torch.fx import Graph, GraphModule

    *nodes, output = graph.nodes
    kernels = [node for node in nodes if is_fused(node.target)]
    used: dict[Node, None] = {}
    for node in nodes:
        if node in kernels:
            used |= dict.fromkeys(node.all_input_nodes)
        elif any(n.op == "placeholder" and n in used for n in node.all_input_nodes):
            raise RuntimeError("weights are used after the optimiser's step")
    inputs = [node for node in nodes if node.op == "placeholder"]
    (found,) = output.args
    further = [node for node in used if node not in inputs and node not in found]
    own = Graph()
    given = [*inputs, *found, *further]
    copies = {node: own.placeholder(f"given_{number}") for number, node in enumerate(given)}
    for kernel in kernels:
        args, kwargs = torch.fx.node.map_arg((kernel.args, kernel.kwargs), copies.__getitem__)
        own.call_function(binding(kernel.target) or kernel.target, args, kwargs)
        graph.erase_node(kernel)
    own.output(())
    output.args = ([*found, *further],)
    return GraphModule(torch.nn.Module(), own), len(found)


def is_fused(operation: Any) -> bool:
    """Whether an operation is a step of an optimiser as one kernel, in place."""
    name = getattr(operation, "__name__", "")
    return name.startswith("_fused_") and name.split(".")[0].endswith("_")


def binding(operation: Any) -> Callable[..., Any] | None:
    """What Python calls for an operation, if it is not Python itself: that takes half as long as `torch.ops`."""
    if operation in QUICK:
        return QUICK[operation]
    name = operation.overloadpacket.__name__
    for place in (torch, torch.nn.functional, Tensor):
        found = getattr(place, name, None)
        if isinstance(found, BuiltinFunctionType | MethodDescriptorType):
            return found
    return None
