"""Coupling flows over maps z with shape (C, H, W), whose parameters come from convolutional networks.

Dinh et al., 2017, Density Estimation Using Real NVP, arXiv:1605.08803, sections 3.2 to 3.4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.distributions.flows.base import Chain, Flow
from vae_train.distributions.flows.monotonic import INITIAL_FACTOR, monotonic, monotonic_family

KERNEL = 3
"""Side of the kernels of a coupling's network."""


@dataclass(eq=False)
class ConvCoupling(Flow):
    """y = t(z; constants) where the mask is 1, and y = t(z; constants + network(mask · z)) elsewhere.

    t is monotonic in each element. The elements where the mask is 1 can be inverted without the network, so that both
    directions take one pass through it.

    Args:
        mask: tensor of zeros and ones with shape (C, H, W).
        layers: weight and bias of every convolution from `mask · z` and the first channel of the mask to P parameters
            per element, as C · P channels.
        constants: tensor with shape (C, H, W, P).
        gain: tensor with shape (C, 1, 1), the factor of tanh(network) in the logarithm of an affine map's scale; None
            for splines.
        univariate: Zuko's class of t, constructed from these parameters.
        sizes: number of parameters of each kind per element, P in total; if all are 1, they have no dimension.
    """

    mask: Tensor
    layers: list[tuple[Tensor, Tensor]]
    constants: Tensor
    gain: Tensor | None
    univariate: Any
    sizes: tuple[int, ...]

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 would not invert itself
            z = z.unflatten(-1, self.mask.shape)
            y, log_slope = self._map(self._parameters(z)).call_and_ladj(z)
            return y.flatten(-3), log_slope.flatten(-3).sum(-1)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            y = y.unflatten(-1, self.mask.shape)
            visible = self._map(self.constants)._inverse(y)  # correct where the mask is 1
            known = self._map(self._parameters(visible))
            z = known._inverse(y)
            return z.flatten(-3), -known.log_abs_det_jacobian(z, y).flatten(-3).sum(-1)

    def _parameters(self, z: Tensor) -> Tensor:
        """The parameters of t with shape `(*N, C, H, W, P)` for maps with shape `(*N, C, H, W)`."""
        leading = z.shape[:-3]
        h = (self.mask * z).reshape(-1, *self.mask.shape)
        h = torch.cat([h, self.mask[:1].expand(len(h), -1, -1, -1)], 1)
        *inner, last = self.layers
        for weight, bias in inner:
            h = F.elu(F.conv2d(h, weight, bias, padding=KERNEL // 2))
        values = F.conv2d(h, *last, padding=KERNEL // 2).unflatten(1, (len(self.mask), -1)).movedim(2, -1)
        if self.gain is not None:
            shift, log_scale = values.unbind(-1)
            values = torch.stack([shift, self.gain * torch.tanh(log_scale)], -1)
        values = values.reshape(*leading, *values.shape[1:])
        return self.constants + (1 - self.mask)[..., None] * values

    def _map(self, values: Tensor) -> Any:
        """t for all elements of a map."""
        return monotonic(self.univariate, self.sizes, values)


class ConvFlow(nn.Module):
    """A sequence of couplings over maps, which start near the identity.

    Their masks take turns: a checkerboard and its complement, then the first half of the channels and the rest. The
    checkerboard also alternates from each channel to the next (in the paper it is the same for all), so that the
    channels of a pixel depend on each other from the first coupling on.

    Args:
        shape: (C, H, W) of z.
        transforms: number of couplings.
        hidden: channels of the hidden layers of each coupling's network.
        bins: bins of rational-quadratic splines on [-5, 5]; None for y = shift + scale · z.

    Raises:
        ValueError: there is only one element, or splines have one bin.
    """

    def __init__(self, shape: tuple[int, ...], transforms: int, hidden: Sequence[int], bins: int | None) -> None:
        super().__init__()
        if math.prod(shape) < 2:
            raise ValueError("coupling layers need at least 2 latents")
        channels = shape[0]
        self.univariate, self.sizes = monotonic_family(bins)
        widths = [channels + 1, *hidden, channels * sum(self.sizes)]
        self.networks = nn.ModuleList(_network(widths) for _ in range(transforms))
        self.constants = nn.ParameterList(torch.zeros(*shape, sum(self.sizes)) for _ in range(transforms))
        self.gains = nn.ParameterList(torch.ones(channels, 1, 1) for _ in range(transforms if bins is None else 0))
        self.masks = nn.Buffer(_masks(shape, transforms), persistent=False)

    def forward(self) -> Flow:
        """The flow, on flattened maps."""
        gains = list(self.gains) or [None] * len(self.networks)
        couplings = []
        for mask, network, constants, gain in zip(self.masks, self.networks, self.constants, gains, strict=True):
            layers: list[Any] = list(network.children())
            weights = [(layer.weight, layer.bias) for layer in layers]
            couplings.append(ConvCoupling(mask, weights, constants, gain, self.univariate, self.sizes))
        return Chain(couplings)


def _network(widths: Sequence[int]) -> nn.ModuleList:
    """The convolutions of one coupling; the last starts near 0."""
    layers = [nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2) for inputs, outputs in pairwise(widths)]
    with torch.no_grad():
        layers[-1].weight.mul_(INITIAL_FACTOR)
        assert layers[-1].bias is not None
        layers[-1].bias.zero_()
    return nn.ModuleList(layers)


def _masks(shape: tuple[int, ...], count: int) -> Tensor:
    """The masks of `count` couplings, with shape `(count, C, H, W)`."""
    channel, row, column = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    board = (channel + row + column) % 2 == 0
    first = channel < -(-shape[0] // 2)
    cycle = [board, ~board, first, ~first] if shape[0] > 1 else [board, ~board]
    return torch.stack([cycle[number % len(cycle)] for number in range(count)]).to(torch.get_default_dtype())
