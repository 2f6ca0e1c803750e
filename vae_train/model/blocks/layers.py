"""Layers that several architectures share."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.base import Network

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh"]
Norm = Literal["none", "group", "layer"]
Init = Literal["torch", "glorot", "he"]
Downsample = Literal["stride", "maxpool", "avgpool"]
Upsample = Literal["even", "stride", "nearest"]
"""Upsampling in a decoder. "even" is a transposed convolution with an even kernel, a multiple of the stride, so
that it covers all pixels equally. "stride" has an odd kernel, which causes checkerboard artefacts. "nearest"
repeats pixels before a convolution and takes twice as long.

Source: Odena et al., "Deconvolution and Checkerboard Artifacts" (Distill 2016, doi:10.23915/distill.00003).
"""

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


class Layers(Network):
    """A sequence of layers; the last is linear or a convolution.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        layers: the layers in order.
        init: initialisation of the weights, see `initialize`.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, layers: Sequence[nn.Module], init: Init) -> None:
        super().__init__(in_shape, out_shape)
        self.layers = nn.Sequential(*layers)
        initialize(self.layers, init)

    @override
    def output_bias(self) -> Tensor:
        last = self.layers[-1]
        assert isinstance(last, nn.Linear | nn.Conv2d)
        assert last.bias is not None
        return last.bias.view(self.out_shape if isinstance(last, nn.Linear) else (-1, 1, 1))

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h).view(-1, *self.out_shape)


def by_rows(network: Callable[[Tensor], Tensor], h: Tensor, event_ndim: int) -> Tensor:
    """Applies a function of tensors with a single leading dimension to `(*N, …)`."""
    leading = h.shape[: h.dim() - event_ndim]
    out = network(h.reshape(-1, *h.shape[len(leading) :]))
    return out.reshape(*leading, *out.shape[1:])


def nonlinearity(name: Activation) -> nn.Module:
    """The nonlinearity called `name`."""
    return _ACTIVATIONS[name]()


def norm2d(name: Norm, channels: int) -> nn.Module:
    """Normalisation of `(N, channels, H, W)`, separately for each image.

    BatchNorm is not supported: an image's ELBO would depend on the rest of its batch, and differ between training and
    evaluation, and `vmap` would not work.
    """
    if name == "none":
        return nn.Identity()
    groups = 1 if name == "layer" else math.gcd(channels, 8)
    while groups > 1 and channels // groups < 4:
        groups //= 2  # for 1x1 maps, a group only has its channels to normalise over
    return nn.GroupNorm(groups, channels)


def initialize(network: nn.Module, init: Init) -> None:
    """Initialises the weights of all linear and convolutional layers; biases become 0.

    Args:
        network: the network whose layers are initialised.
        init: "torch" keeps PyTorch's own: uniform with standard deviation 1 / sqrt(3 fan_in), so small that deep
            decoders start almost independent of z. "glorot" preserves variances through linear layers (Glorot & Bengio,
            2010), "he" through ReLU layers (He et al., 2015).
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
