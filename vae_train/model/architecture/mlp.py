"""A multi-layer perceptron for inputs and outputs of any shape."""

import math
from itertools import pairwise

from torch import nn

from vae_train.batch import Shape
from vae_train.model.blocks.layers import Activation, Init, Layers, nonlinearity
from vae_train.util.ranges import PositiveInt


class MLP(Layers):
    """Flatten, linear layers with an activation between them, unflatten.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        hidden: sizes of the hidden layers from input to output; may be empty.
        activation: the nonlinearity after every hidden layer.
        gated: use gated hidden layers, a · sigmoid(b) with two linear maps a and b (Dauphin et al., 2017,
            arXiv:1612.08083, eq. 1, as in Tomczak & Welling, 2018); the activation is then not used.
        init: initialisation of the weights, see `vae_train.model.blocks.layers.initialize`.
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
        sizes = [math.prod(in_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers.append(nn.Linear(inputs, 2 * outputs if gated else outputs))
            layers.append(nn.GLU() if gated else nonlinearity(activation))
        super().__init__(in_shape, out_shape, [*layers, nn.Linear(sizes[-1], math.prod(out_shape))], init)
