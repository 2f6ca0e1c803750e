"""Layers that several architectures share."""

import math
from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh"]
Norm = Literal["none", "group", "layer"]
Init = Literal["torch", "glorot", "he"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def nonlinearity(name: Activation) -> nn.Module:
    """The nonlinearity called `name`."""
    return _ACTIVATIONS[name]()


def norm2d(name: Norm, channels: int) -> nn.Module:
    """Normalisation of `(N, channels, H, W)`, of one image at a time.

    There is no BatchNorm: an image's bound would depend on the other images of its batch, differently in training and
    in evaluation, and models could not be stacked with `vmap`.
    """
    if name == "none":
        return nn.Identity()
    groups = 1 if name == "layer" else math.gcd(channels, 8)
    while groups > 1 and channels // groups < 4:
        groups //= 2  # on a map of one pixel a group has only its channels to normalise over
    return nn.GroupNorm(groups, channels)


def channel_bias(layer: nn.Module) -> Tensor:
    """The bias of a convolution as a map that broadcasts to its output."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return layer.bias.view(-1, 1, 1)


def initialize(network: nn.Module, init: Init) -> None:
    """Initialises the weights of all linear and convolutional layers; biases become 0.

    Args:
        network: the network whose layers are initialised.
        init: "torch" keeps PyTorch's own: uniform with standard deviation 1 / sqrt(3 fan_in), so small that deep
            decoders start almost independent of z. "glorot" preserves variances through linear layers (Glorot & Bengio,
            2010), "he" through rectified ones (He et al., 2015).
    """
    if init == "torch":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if init == "glorot":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
