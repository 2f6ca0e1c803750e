"""The multi-layer perceptron, for any shape."""

import math
from itertools import pairwise

from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.base import Network
from vae_train.model.layers import Activation, Init, initialize, nonlinearity
from vae_train.util.ranges import PositiveInt


class MLP(Network):
    """Flatten, linear layers with an activation between them, unflatten.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        hidden: sizes of the hidden layers, from the input on; may be empty.
        activation: the nonlinearity after every hidden layer.
        gated: hidden layers are a · sigmoid(b) of two linear maps a and b instead (Dauphin et al., 2017,
            arXiv:1612.08083, eq. 1, as in Tomczak & Welling, 2018); the activation is then not used.
        init: how the weights start, see `vae_train.model.layers.initialize`.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        hidden: list[PositiveInt],
        activation: Activation,
        gated: bool,
        init: Init,
    ) -> None:
        super().__init__(in_shape, out_shape)
        sizes = [math.prod(in_shape), *hidden, math.prod(out_shape)]
        self.layers = nn.Sequential(nn.Flatten(), *_layers(sizes, activation, gated))
        initialize(self.layers, init)

    @override
    def output_bias(self) -> Tensor:
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        return last.bias.view(self.out_shape)

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h).view(-1, *self.out_shape)


def _layers(sizes: list[int], name: Activation, gated: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += (
            [nn.Linear(inputs, 2 * outputs), nn.GLU()] if gated else [nn.Linear(inputs, outputs), nonlinearity(name)]
        )
    return [*layers, nn.Linear(sizes[-2], sizes[-1])]
