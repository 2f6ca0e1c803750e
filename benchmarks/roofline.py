"""The hardware's limit: the matrix products and convolutions of a step alone, and the optimiser's memory traffic.

The shapes and memory layouts are recorded while vae_train takes a step. Random tensors of these shapes then go through
the same kernels: forward with bias, weight gradient, input gradient (but for the first layer), and fused Adam. There is
no activation, loss, noise, data or autograd, and on CUDA a single graph launch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.implementation import Implementation
from benchmarks.vae_train_loop import VaeTrainLoop
from benchmarks.workload import Settings

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Sizes and strides of a tensor."""

Kernel = Callable[[], object]


@dataclass(frozen=True)
class Layer:
    """One use of a linear or convolutional layer."""

    input: Layout
    weight: Layout
    output: Layout
    is_first: bool
    """Whether its input is data, which needs no gradient."""
    convolution: dict[str, Any] | None
    """The further arguments of aten::convolution; None for a linear layer."""

    @property
    def flop(self) -> int:
        """Floating-point operations of one training step, those on padding included."""
        transposed = self.convolution is not None and self.convolution["transposed"]
        size = self.input[0] if transposed else self.output[0]
        # The whole kernel is used for every pixel of the output, or of the input of a transposed convolution.
        positions = math.prod(size) // size[1] if self.convolution else math.prod(size[:-1])
        return 2 * positions * math.prod(self.weight[0]) * (2 if self.is_first else 3)


class Roofline(Implementation):
    """Runs the kernels that no implementation of a step can do without.

    Args:
        settings: what would be trained, and on what.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        vae_train = VaeTrainLoop(settings, execution="eager")
        model = vae_train.training.model
        self.layers = record_layers(model, lambda: vae_train.steps(1))
        sizes = [p.shape for p in model.parameters()]
        self.num_parameters = sum(map(math.prod, sizes))
        pairs = [_kernels(layer, self.device) for layer in self.layers]
        self._calls = [forward for forward, _ in pairs] + [backward for _, backward in reversed(pairs)]
        self._calls.append(_adam(sizes, self.device))
        self._run: Kernel = self._capture() if self.device.type == "cuda" else self._run_once

    @override
    def steps(self, count: int) -> float:
        for _ in range(count):
            self._run()
        return math.nan  # there is no loss

    @override
    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "gflop": sum(layer.flop for layer in self.layers) / 1e9}

    @torch.no_grad()
    def _run_once(self) -> None:
        for call in self._calls:
            call()

    def _capture(self) -> Kernel:
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._run_once()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run_once()
        return graph.replay


def record_layers(model: nn.Module, step: Callable[[], object]) -> list[Layer]:
    """The linear and convolutional layers that a training step uses, in order.

    Args:
        model: contains the layers.
        step: takes one training step with `model`.
    """
    layers: list[Layer] = []

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        arguments = None if isinstance(module, nn.Linear) else _convolution_arguments(module)
        layers.append(Layer(_layout(x), _layout(module.weight), _layout(output), not x.requires_grad, arguments))

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, kinds)]
    try:
        step()
    finally:
        for handle in handles:
            handle.remove()
    return layers


def _kernels(layer: Layer, device: torch.device) -> tuple[Kernel, Kernel]:
    """The forward and the backward pass of a layer on random tensors."""
    return _linear(layer, device) if layer.convolution is None else _convolution(layer, layer.convolution, device)


def _linear(layer: Layer, device: torch.device) -> tuple[Kernel, Kernel]:
    outputs, inputs = layer.weight[0]
    rows = math.prod(layer.input[0][:-1])

    def matrix(*size: int) -> Tensor:
        return torch.randn(size, device=device).mul_(0.1)

    x, y, bias, weight = matrix(rows, inputs), matrix(rows, outputs), matrix(outputs), _random(layer.weight, device)
    grad_y, grad_x, grad_weight = matrix(rows, outputs), matrix(rows, inputs), matrix(outputs, inputs)

    def backward() -> None:
        if not layer.is_first:
            torch.mm(grad_y, weight, out=grad_x)
        torch.mm(grad_y.t(), x, out=grad_weight)

    return lambda: torch.addmm(bias, x, weight.t(), out=y), backward


def _convolution(layer: Layer, arguments: dict[str, Any], device: torch.device) -> tuple[Kernel, Kernel]:
    x, weight, grad_y = (_random(layout, device) for layout in (layer.input, layer.weight, layer.output))
    bias = torch.randn(layer.output[0][1], device=device)
    mask = [not layer.is_first, True, False]
    aten = torch.ops.aten
    return (
        lambda: aten.convolution(x, weight, bias, **arguments),
        lambda: aten.convolution_backward(grad_y, x, weight, None, **arguments, output_mask=mask),
    )


def _adam(sizes: list[torch.Size], device: torch.device) -> Kernel:
    weights, gradients, first, second = ([torch.rand(s, device=device) for s in sizes] for _ in range(4))
    count = [torch.ones((), device=device) for _ in sizes]
    numbers = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    flags: dict[str, Any] = {"amsgrad": False, "maximize": False}
    return lambda: torch._fused_adam_(weights, gradients, first, second, [], count, **numbers, **flags)  # type: ignore


def _convolution_arguments(module: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    return {
        "stride": list(module.stride),
        "padding": list(module.padding),  # type: ignore[arg-type]
        "dilation": list(module.dilation),
        "transposed": isinstance(module, nn.ConvTranspose2d),
        "output_padding": list(module.output_padding),
        "groups": module.groups,
    }


def _layout(tensor: Tensor) -> Layout:
    return tuple(tensor.shape), tensor.stride()


def _random(layout: Layout, device: torch.device) -> Tensor:
    return torch.empty_strided(*layout, device=device).normal_(std=0.1)
