"""Residual blocks and self-attention of maps.

A block adds a function of its input to the input, and starts as the identity (with a resized input, if it resizes):
its last convolution starts at 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.blocks.elu import FastELU
from vae_train.model.blocks.layers import Activation, Init, Layers, nonlinearity, norm2d
from vae_train.model.blocks.resampling import Resample, Size
from vae_train.model.blocks.weight_norm import WeightNormConv2d, WeightNormLinear, reset_gains
from vae_train.model.traits import CAPABILITIES

BlockNorm = Literal["none", "group", "weight"]
"""Normalisation of a residual network: of features, separately for each image ("group"), or of weights."""
BlockDownsample = Literal["stride", "avgpool"]
BlockUpsample = Literal["nearest", "bilinear"]

HEAD_CHANNELS = 64
"""Channels of one attention head."""


class BlockStyle(NamedTuple):
    """Settings of all residual blocks of a network."""

    kernel: int
    """Odd side of the kernels."""
    activation: Activation
    norm: BlockNorm
    checkpointing: bool
    """Whether blocks are computed again in the backward pass instead of storing their activations."""

    def convolution(self, inputs: int, outputs: int, kernel: int | None = None, stride: int = 1) -> nn.Conv2d:
        """A convolution that keeps height and width, or divides them by the stride."""
        kernel = self.kernel if kernel is None else kernel
        if self.norm == "weight":
            return WeightNormConv2d(inputs, outputs, kernel, stride)
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear layer."""
        return WeightNormLinear(inputs, outputs) if self.norm == "weight" else nn.Linear(inputs, outputs)

    def normalization(self, channels: int) -> nn.Module:
        """The normalisation of features."""
        return norm2d("group" if self.norm == "group" else "none", channels)

    def preactivation(self, channels: int) -> list[nn.Module]:
        """Normalisation and nonlinearity before a convolution."""
        return [self.normalization(channels), self.nonlinearity()]

    def nonlinearity(self) -> nn.Module:
        """The nonlinearity."""
        return FastELU() if self.activation == "elu" else nonlinearity(self.activation)


class Residual(nn.Module, ABC):
    """A module that computes a function plus its input, without storing activations if `checkpointing`.

    Args:
        checkpointing: see `BlockStyle`.
    """

    def __init__(self, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing

    @abstractmethod
    def last(self) -> nn.Conv2d:
        """The convolution that starts at 0."""

    @abstractmethod
    def compute(self, h: Tensor) -> Tensor:
        """Maps `(N, C, H, W)` to `(N, C', H', W')`."""

    @override
    def forward(self, h: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            # There is no dropout, so the state of the global generator does not matter.
            return checkpoint(self.compute, h, use_reentrant=False, preserve_rng_state=False)
        return self.compute(h)


class ResidualBlock(Residual):
    """Two convolutions, each after normalisation and nonlinearity (He et al., 2016, arXiv:1603.05027, figure 4e).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        style: settings of the block.
        down: how height and width are halved, rounding up, before or in the first convolution.
        up: modules that double height and width before the first convolution; without parameters.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: BlockStyle,
        down: BlockDownsample | None = None,
        up: nn.Module | None = None,
    ) -> None:
        super().__init__(style.checkpointing)
        before = [nn.AvgPool2d(2, ceil_mode=True)] if down == "avgpool" else [] if up is None else [up]
        first = style.convolution(inputs, outputs, stride=2 if down == "stride" else 1)
        self.body = nn.Sequential(
            *(*style.preactivation(inputs), *before, first),
            *(*style.preactivation(outputs), style.convolution(outputs, outputs)),
        )
        project = [style.convolution(inputs, outputs, 1)] if inputs != outputs else []
        pool = [] if down is None else [nn.AvgPool2d(2, ceil_mode=True)]
        self.shortcut = nn.Sequential(*pool, *project, *([] if up is None else [up]))

    @override
    def last(self) -> nn.Conv2d:
        layer = self.body[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer

    @override
    def compute(self, h: Tensor) -> Tensor:
        return self.shortcut(h) + self.body(h)


class SelfAttention(Residual):
    """Every pixel receives a weighted mean of the values of all pixels (Vaswani et al., 2017, arXiv:1706.03762, eq. 1).

    The product is written out, since the gradients of PyTorch's fused attention are not deterministic on CUDA.

    Args:
        channels: channels of input and output; there is a head for every `HEAD_CHANNELS` of them.
        style: settings of the block.
    """

    def __init__(self, channels: int, style: BlockStyle) -> None:
        super().__init__(style.checkpointing)
        self.heads = max(n for n in range(1, max(1, channels // HEAD_CHANNELS) + 1) if channels % n == 0)
        self.norm = style.normalization(channels)
        self.project_in = style.convolution(channels, 3 * channels, 1)
        self.project_out = style.convolution(channels, channels, 1)

    @override
    def last(self) -> nn.Conv2d:
        return self.project_out

    @override
    def compute(self, h: Tensor) -> Tensor:
        batch, channels, height, width = h.shape
        size = channels // self.heads
        parts = self.project_in(self.norm(h)).reshape(batch, 3, self.heads, size, height * width)
        query, key, value = parts.unbind(1)
        weights = (query.transpose(-1, -2) @ key / size**0.5).softmax(-1)
        mixed = value @ weights.transpose(-1, -2)
        return h + self.project_out(mixed.reshape(batch, channels, height, width))


class ResidualNetwork(Layers):
    """A residual network, whose blocks start as the identity.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        layers: the layers in order.
        init: initialisation of the weights, see `vae_train.model.blocks.layers.initialize`.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, layers: Sequence[nn.Module], init: Init) -> None:
        super().__init__(in_shape, out_shape, layers, init)
        reset_gains(self)
        start_as_identity(self)

    @classmethod
    @override
    def supported(cls, **settings: Any) -> frozenset[str]:
        # torch.func does not support the hooks of PyTorch's checkpointing.
        return CAPABILITIES - ({"compile", "vmap"} if settings["checkpointing"] else set())


def upsampling(kind: BlockUpsample, before: Size, after: Size) -> nn.Module:
    """Doubles height and width: repeats pixels, or interpolates them linearly."""
    return nn.Upsample(size=after, mode="nearest") if kind == "nearest" else Resample(before, after)


def start_as_identity(network: nn.Module) -> None:
    """Sets the last convolution of every residual block to 0."""
    for block in network.modules():
        if isinstance(block, Residual):
            last = block.last()
            # With weight normalisation the length becomes 0; its direction has to stay.
            start = last.gain if isinstance(last, WeightNormConv2d) else last.weight
            assert last.bias is not None
            nn.init.zeros_(start)
            nn.init.zeros_(last.bias)
