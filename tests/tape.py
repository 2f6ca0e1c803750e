"""A recorder for the CPU that keeps the rules of a CUDA graph, so that captured steps can be tested without a GPU.

Recorded are the operations below autograd with the very tensors that they worked on, and nothing else: a Python number
that changes between replays stays what it was, and code that is not a tensor operation does not run again. What a
capture forbids is an error: asking for a tensor's value, copying from another place, and sampling from a generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FORBIDDEN = ("aten._local_scalar_dense", "aten.equal", "aten.is_nonzero", "aten.nonzero", "aten.masked_select")


class Tape(TorchDispatchMode):
    """Takes the place of `vae_train.training.execution.cuda_graph.CudaRecorder`.

    Args:
        state: gives all tensors that the recorded function changes: recording must not execute anything, and on a CPU
            that means to put them back.
    """

    def __init__(self, state: Callable[[], list[Tensor]]) -> None:
        super().__init__()
        self.state = state
        self.calls: list[tuple[Any, tuple, dict, Any]] = []
        self.recorded = self.replayed = 0

    @contextmanager
    def warm(self) -> Iterator[None]:
        yield

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        before = [t.detach().clone() for t in self.state()]
        self.calls = calls = []
        try:
            with self:
                body()
        finally:
            with torch.no_grad():
                for tensor, value in zip(self.state(), before, strict=True):
                    tensor.copy_(value)
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():
                for func, args, kwargs, out in calls:
                    again = func(*args, **kwargs)
                    for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                        if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                            old.copy_(new)

        return replay

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        if name.startswith("profiler."):
            return func(*args, **kwargs)
        if any(name.startswith(forbidden) for forbidden in FORBIDDEN):
            raise RuntimeError(f"{name} waits for the device within a captured step")
        if any(isinstance(a, torch.Generator) for a in (*args, *kwargs.values())) or "rand" in name:
            raise RuntimeError(f"{name} samples within a captured step")
        out = func(*args, **kwargs)

        self.calls.append((func, args, kwargs, out))
        return out


class Rerun:
    """A recorder that runs the function again instead: for compiled kernels, which a tape does not see."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    @contextmanager
    def warm(self) -> Iterator[None]:
        yield

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            body()

        return replay
