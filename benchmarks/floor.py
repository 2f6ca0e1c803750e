"""The least that a step can cost here: its matrix products and convolutions alone, and the optimiser's memory traffic.

The shapes and memory layouts are noted while our model takes a step; then random tensors of these shapes go through the
same kernels: forward with bias, weight gradient, input gradient but for the first layer, fused Adam. No activation, no
loss, no noise, no data, no autograd, and on CUDA a single launch. It runs under the same process settings as ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contender import Contender
from benchmarks.ours import Ours
from benchmarks.work import Setting

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Sizes and strides of a tensor."""


@dataclass(frozen=True)
class Layer:
    """One linear or convolutional layer as it was used."""

    input: Layout
    weight: Layout
    output: Layout
    first: bool
    """Whether its input is data, which needs no gradient."""
    convolution: dict[str, Any] | None
    """The further arguments of aten::convolution; None for a linear layer."""

    @property
    def flop(self) -> int:
        """Additions and multiplications of one step; padding is counted."""
        transposed = self.convolution is not None and self.convolution["transposed"]
        size = self.input[0] if transposed else self.output[0]
        # The whole kernel is used for every pixel of the output, or of the input of a transposed convolution.
        positions = math.prod(size) // size[1] if self.convolution else math.prod(size[:-1])
        return 2 * positions * math.prod(self.weight[0]) * (2 if self.first else 3)


def record(model: nn.Module, step: Callable[[], object]) -> list[Layer]:
    """The layers that `step` makes `model` use, in order.

    Args:
        model: its `nn.Linear`, `nn.Conv2d` and `nn.ConvTranspose2d` are listened to.
        step: one training step.
    """
    found: list[Layer] = []

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        further = None if isinstance(module, nn.Linear) else _arguments(module)
        found.append(Layer(_layout(x), _layout(module.weight), _layout(output), not x.requires_grad, further))

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, kinds)]
    try:
        step()
    finally:
        for handle in handles:
            handle.remove()
    return found


class Floor(Contender):
    """See the module.

    Args:
        setting: what would be trained and on what.
        precision: "bfloat16" gives the products these tensors; the optimiser keeps float32.
    """

    def __init__(self, setting: Setting, precision: str = "float32") -> None:
        super().__init__(setting)
        self.layers, sizes = _used(setting, precision)
        self.parameters = sum(map(math.prod, sizes))
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        make = Maker(self.device, dtype)
        pairs = [_linear(layer, make) if layer.convolution is None else _conv(layer, make) for layer in self.layers]
        self._calls = [forward for forward, _ in pairs] + [backward for _, backward in reversed(pairs)]
        self._calls.append(_adam(sizes, self.device))
        self._run = self._captured() if self.device.type == "cuda" else self._once

    def steps(self, count: int) -> float:
        """The kernels of `count` steps; there is no loss."""
        for _ in range(count):
            self._run()
        return math.nan

    def about(self) -> dict[str, Any]:
        """See `Contender.about`; "gflop" is the work of a step."""
        return {"parameters": self.parameters, "gflop": sum(layer.flop for layer in self.layers) / 1e9}

    @torch.no_grad()
    def _once(self) -> None:
        for call in self._calls:
            call()

    def _captured(self) -> Callable[[], None]:
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._once()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._once()
        return graph.replay


def _used(setting: Setting, precision: str) -> tuple[list[Layer], list[torch.Size]]:
    """The layers that our step uses, and the sizes of our parameters; nothing else of ours stays."""
    ours = Ours(setting, precision, execution="eager")
    return record(ours.learner.model, lambda: ours.steps(1)), [p.shape for p in ours.learner.parameters]


class Maker:
    """Makes random tensors.

    Args:
        device: where they lie.
        dtype: their type.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.options: dict[str, Any] = {"device": device, "dtype": dtype}

    def like(self, layout: Layout) -> Tensor:
        """A tensor with these sizes and strides."""
        return torch.empty_strided(*layout, **self.options).normal_(std=0.1)

    def matrix(self, *size: int) -> Tensor:
        """A tensor whose numbers lie in order."""
        return torch.empty(size, **self.options).normal_(std=0.1)


def _linear(layer: Layer, make: Maker) -> tuple[Callable[[], object], Callable[[], object]]:
    outputs, inputs = layer.weight[0]
    rows = math.prod(layer.input[0][:-1])
    x, y, bias, weight = (
        make.matrix(rows, inputs),
        make.matrix(rows, outputs),
        make.matrix(outputs),
        make.like(layer.weight),
    )
    to_y, to_x, to_weight = make.matrix(rows, outputs), make.matrix(rows, inputs), make.matrix(outputs, inputs)

    def backward() -> None:
        if not layer.first:
            torch.mm(to_y, weight, out=to_x)
        torch.mm(to_y.t(), x, out=to_weight)

    return lambda: torch.addmm(bias, x, weight.t(), out=y), backward


def _conv(layer: Layer, make: Maker) -> tuple[Callable[[], object], Callable[[], object]]:
    assert layer.convolution is not None
    x, weight, to_y, further = (
        make.like(layer.input),
        make.like(layer.weight),
        make.like(layer.output),
        layer.convolution,
    )
    bias = make.matrix(layer.output[0][1])
    wanted = [not layer.first, True, False]
    aten = torch.ops.aten
    return (
        lambda: aten.convolution(x, weight, bias, **further),
        lambda: aten.convolution_backward(to_y, x, weight, None, **further, output_mask=wanted),
    )


def _adam(sizes: list[torch.Size], device: torch.device) -> Callable[[], object]:
    weights, gradients, first, second = ([torch.rand(s, device=device) for s in sizes] for _ in range(4))
    count = [torch.ones((), device=device) for _ in sizes]
    numbers = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    flags: dict[str, Any] = {"amsgrad": False, "maximize": False}
    return lambda: torch._fused_adam_(weights, gradients, first, second, [], count, **numbers, **flags)  # type: ignore


def _arguments(module: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    transposed = isinstance(module, nn.ConvTranspose2d)
    return {
        "stride": list(module.stride),
        "padding": list(module.padding),  # type: ignore[arg-type]
        "dilation": list(module.dilation),
        "transposed": transposed,
        "output_padding": list(module.output_padding),
        "groups": module.groups,
    }


def _layout(tensor: Tensor) -> Layout:
    return tuple(tensor.shape), tensor.stride()
