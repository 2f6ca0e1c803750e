"""Weight normalisation: a layer whose weights are directions with learned lengths.

Salimans & Kingma, 2016, Weight Normalization, arXiv:1602.07868.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override


class WeightNormLinear(nn.Linear):
    """y = g · v / |v| · h + b, with one length g per output (eq. 2).

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(_norms(self.weight.detach()))

    @override
    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, normalized(self.weight, self.gain), self.bias)


class WeightNormConv2d(nn.Conv2d):
    """A convolution with one length g per output channel, see `WeightNormLinear`.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: odd side of the kernel.
        stride: the stride.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2)
        self.gain = nn.Parameter(_norms(self.weight.detach()))

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self._conv_forward(h, normalized(self.weight, self.gain), self.bias)


WeightNormLayer = WeightNormLinear | WeightNormConv2d

MIN_STD = 1e-3
"""Smallest standard deviation that is scaled to 1; outputs that hardly vary are scaled by its inverse."""


@torch.no_grad()
def reset_gains(network: nn.Module) -> None:
    """Sets all lengths to those of the weights, so that the layers compute what they would without normalisation."""
    for layer in network.modules():
        if isinstance(layer, WeightNormLayer):
            layer.gain.copy_(_norms(layer.weight))


@torch.no_grad()
def normalize_output(layer: WeightNormLayer, h: Tensor) -> None:
    """Sets lengths and biases so that every output has mean 0 and variance 1 (section 3, eq. 5).

    Layers of length 0, with which residual blocks start as the identity, are not changed.

    Args:
        layer: the layer.
        h: inputs of the layer; means are over the batch and all pixels.
    """
    if not layer.gain.any():
        return
    assert layer.bias is not None
    layer.gain.fill_(1)
    layer.bias.zero_()
    out = layer.forward(h).transpose(0, 1).flatten(1)
    std = out.std(1, correction=0).clamp_min(MIN_STD)
    layer.gain.div_(std)
    layer.bias.sub_(out.mean(1) / std)


def normalized(weight: Tensor, gain: Tensor) -> Tensor:
    """The weights with directions `weight`, `(outputs, …)`, and lengths `gain`, `(outputs,)`."""
    return weight * (gain / _norms(weight)).view(-1, *(1 for _ in weight.shape[1:]))


def _norms(weight: Tensor) -> Tensor:
    return weight.flatten(1).norm(dim=1)
