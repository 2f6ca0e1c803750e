"""The multi-layer perceptron, for any shape."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from vae_train.model.base import Network, Shape
from vae_train.model.layers import Activation, Init, initialize, nonlinearity
from vae_train.ranges import PositiveInt


class MLP(Network):
    """Flatten, linear layers with an activation between them, unflatten.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        hidden: sizes of the hidden layers, from the input on; may be empty.
        activation: the nonlinearity after every hidden layer.
        init: how the weights start, see `vae_train.model.layers.initialize`.
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, hidden: list[PositiveInt], activation: Activation, init: Init
    ) -> None:
        super().__init__(in_shape, out_shape)
        sizes = [math.prod(in_shape), *hidden, math.prod(out_shape)]
        self.layers = nn.Sequential(nn.Flatten(), *_layers(sizes, activation))
        initialize(self.layers, init)

    def forward(self, h: Tensor) -> Tensor:
        """See `Network.forward`."""
        return self.layers(h).view(-1, *self.out_shape)


def _layers(sizes: list[int], name: Activation) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nonlinearity(name)]
    return layers[:-1]  # the output is linear
