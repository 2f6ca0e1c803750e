"""Residual cells of convolutional ladders, for maps of any size."""

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.model.blocks.layers import Activation, Norm, nonlinearity, norm2d

CellName = Literal["bottleneck", "nvae"]


class Bottleneck(nn.Sequential):
    """Convolutions 1x1, twice 3x3, and 1x1, each after a nonlinearity (Child, 2021, arXiv:2011.10650, figure 3).

    Args:
        inputs: channels of the input.
        hidden: channels between the convolutions.
        outputs: channels of the output.
        side: longer side of the maps; those of one or two pixels have 1x1 convolutions only.
        activation: the nonlinearity.
        norm: normalisation of the input, separately for each image.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, side: int, activation: Activation, norm: Norm) -> None:
        layers = [norm2d(norm, inputs)]
        kernel, before = 3 if side > 2 else 1, inputs
        for size, after in ((1, hidden), (kernel, hidden), (kernel, hidden), (1, outputs)):
            layers += [nonlinearity(activation), nn.Conv2d(before, after, size, padding=size // 2)]
            before = after
        super().__init__(*layers)


class Separable(nn.Sequential):
    """A 1x1, a depthwise 5x5 and a 1x1 convolution (Vahdat & Kautz, 2020, arXiv:2007.03898, figure 3a).

    There is no BatchNorm, with which an image's ELBO would depend on its batch.

    Args:
        inputs: channels of the input.
        hidden: channels between the convolutions.
        outputs: channels of the output.
        side: longer side of the maps, above which no kernel extends.
        activation: the nonlinearity.
        norm: normalisation before every convolution, separately for each image.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, side: int, activation: Activation, norm: Norm) -> None:
        kernel = next(size for size in (5, 3, 1) if size <= side)
        super().__init__(
            *(norm2d(norm, inputs), nonlinearity(activation), nn.Conv2d(inputs, hidden, 1)),
            *(norm2d(norm, hidden), nonlinearity(activation)),
            nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden),
            *(norm2d(norm, hidden), nonlinearity(activation), nn.Conv2d(hidden, outputs, 1)),
        )


class GatedSeparable(Separable):
    """`Separable` cells with a gate per output channel, for outputs that are added to features.

    Args:
        inputs: see `Separable`.
        hidden: see `Separable`.
        outputs: see `Separable`.
        side: see `Separable`.
        activation: see `Separable`.
        norm: see `Separable`.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, side: int, activation: Activation, norm: Norm) -> None:
        super().__init__(inputs, hidden, outputs, side, activation, norm)
        self.append(ChannelGate(outputs))


class ChannelGate(nn.Module):
    """Multiplies every channel by a number in (0, 1), computed from the means of all channels.

    Hu et al., 2018, Squeeze-and-Excitation Networks, arXiv:1709.01507.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    @override
    def forward(self, h: Tensor) -> Tensor:
        return h * self.layers(h.mean((2, 3)))[..., None, None]


HEADS: dict[CellName, type[Bottleneck | Separable]] = {"bottleneck": Bottleneck, "nvae": Separable}
"""Cells whose outputs are parameters of distributions."""
RESIDUALS: dict[CellName, type[Bottleneck | Separable]] = {"bottleneck": Bottleneck, "nvae": GatedSeparable}
"""Cells whose outputs are added to features."""
HIDDEN_RATIOS: dict[CellName, float] = {"bottleneck": 0.5, "nvae": 3.0}
"""Default width of the hidden layers relative to that of the ladder."""


@torch.no_grad()
def scale_last(cell: nn.Module, factor: float) -> None:
    """Scales the weights of the last convolution; its bias starts at 0."""
    last = [layer for layer in cell.modules() if isinstance(layer, nn.Conv2d)][-1]
    assert last.bias is not None
    last.weight.mul_(factor)
    last.bias.zero_()
