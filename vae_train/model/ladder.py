"""Deep convolutional ladders: many layers of latent maps at several scales.

Child, 2021, Very Deep VAEs, arXiv:2011.10650; Vahdat & Kautz, 2020, NVAE, arXiv:2007.03898. A bottom-up pass computes
features of the image at every scale. The top-down pass, which inference and generation share, carries a state h:

    (p(z_i | z above), r) = prior cell(h),   q(z_i | z above, x) = posterior cell(h, features)
    h <- h + r + W z_i,   h <- h + cell(h)

From one scale to the next, h is upsampled and learned maps are added.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.normal import Normal
from vae_train.model.architecture.base import Style, convolution, doublings, halvings, max_depth, sizes
from vae_train.model.blocks.cells import HEADS, HIDDEN_RATIOS, RESIDUALS, CellName, scale_last
from vae_train.model.blocks.layers import Activation, Layers, Norm, by_rows
from vae_train.model.blocks.resampling import Size
from vae_train.model.condition import ConditionKind
from vae_train.model.family import Likelihood
from vae_train.model.hierarchy import Choose, Hierarchy, normal, relative
from vae_train.util.errors import Incompatible, IncompatibleError
from vae_train.util.ranges import PositiveFloat, PositiveInt

DEFAULT_SIDES = range(4, 17)
"""Longer sides of the maps that have latents by default; latents at larger scales take most of the time."""
DEFAULT_LAYERS = 2
"""Layers of each of them."""


class Group(NamedTuple):
    """Layers of latents at one scale."""

    size: Size
    """Height and width."""
    halvings: int
    """Times that the image is halved."""
    layers: int


class CellStyle(NamedTuple):
    """Settings of all cells of a ladder."""

    name: CellName
    width: int
    """Channels of the state and the features."""
    hidden: int
    """Channels within a cell."""
    activation: Activation
    norm: Norm
    factor: float
    """Factor on the last weights of a cell, so that sums of many cells keep their variance."""

    def head(self, inputs: int, outputs: int, group: Group) -> nn.Module:
        """A cell for parameters of distributions."""
        return self._scaled(HEADS[self.name], inputs, outputs, group)

    def residual(self, group: Group) -> nn.Module:
        """A cell that is added to features."""
        return self._scaled(RESIDUALS[self.name], self.width, self.width, group)

    def _scaled(self, kind: Callable[..., nn.Module], inputs: int, outputs: int, group: Group) -> nn.Module:
        cell = kind(inputs, self.hidden, outputs, max(group.size), self.activation, self.norm)
        scale_last(cell, self.factor)
        return cell


class Layer(nn.Module):
    """The networks of one layer of the top-down pass.

    Args:
        group: the scale of the layer.
        latent_channels: channels of z.
        inputs: channels of z with the condition, if any.
        style: settings of the cells.
    """

    def __init__(self, group: Group, latent_channels: int, inputs: int, style: CellStyle) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.prior = style.head(style.width, 2 * latent_channels + style.width, group)
        scale_last(self.prior, 0.0)  # every layer starts as a standard normal distribution
        self.posterior = style.head(2 * style.width, 2 * latent_channels, group)
        self.project = nn.Conv2d(inputs, style.width, 1)
        scale_last(self.project, style.factor)
        self.cell = style.residual(group)

    def descend(self, state: Tensor, choose: Callable[[Normal, Tensor], Tensor]) -> Tensor:
        """The state below this layer, given the state above it; z is chosen from its prior and that state."""
        parameters = by_rows(self.prior, state, 3)
        moments, residual = parameters.tensor_split([2 * self.latent_channels], -3)
        state = state + residual + by_rows(self.project, choose(normal(moments, 3), state), 3)
        return state + by_rows(self.cell, state, 3)


class Ladder(Hierarchy):
    """A ladder of latent maps with a learned prior in every layer.

    Args:
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        groups: pairs of the longer side of a scale of the image and its number of layers, from the image up: the last
            layer of the last pair is the topmost. None for two layers at every scale from 16 to 4.
        latent_channels: channels of z.
        width: channels of the state and the features.
        hidden_ratio: channels within cells relative to `width`; None for `HIDDEN_RATIOS`.
        cell: "bottleneck" (Very Deep VAEs) or "nvae" (NVAE).
        combine: "relative" for a posterior that is a change of the prior as in NVAE, "absolute" for its own mean and
            scale.
        activation: the nonlinearity.
        norm: normalisation in cells, separately for each image.
        likelihood: family of p(x | z).
        condition: see `Hierarchy`.
        factor_sizes: see `Hierarchy`.
        output_bias: "data" fits the last bias to the training images, see `fit_output_bias`; "init" keeps it.

    Raises:
        IncompatibleError: a group is no scale of the image.
    """

    def __init__(
        self,
        data_shape: Shape,
        levels: int | None,
        groups: list[list[PositiveInt]] | None,
        latent_channels: PositiveInt,
        width: PositiveInt,
        hidden_ratio: PositiveFloat | None,
        cell: CellName,
        combine: Literal["relative", "absolute"],
        activation: Activation,
        norm: Norm,
        likelihood: Callable[..., Likelihood],
        condition: ConditionKind | None,
        factor_sizes: tuple[int, ...],
        output_bias: Literal["init", "data"],
    ) -> None:
        _, height, width_of_image = data_shape
        image = (height, width_of_image)
        scales = groups_of(image, groups)
        top = (latent_channels, *scales[-1].size)
        super().__init__(data_shape, levels, top, likelihood, condition, factor_sizes, output_bias)
        self.groups = scales
        self.combine, self.latent_channels = combine, latent_channels
        ratio = HIDDEN_RATIOS[cell] if hidden_ratio is None else hidden_ratio
        factor = 1 / math.sqrt(sum(group.layers for group in self.groups))
        style = CellStyle(cell, width, max(1, round(ratio * width)), activation, norm, factor)
        top_down = self.groups[::-1]
        self.up = nn.ModuleList(style.residual(group) for group in self.groups for _ in range(group.layers))
        self.starts = nn.ParameterList(nn.Parameter(torch.zeros(width, *group.size)) for group in top_down)
        inputs = [self.top_shape[0]] + [latent_channels] * (sum(group.layers for group in self.groups) - 1)
        layer_groups = [group for group in top_down for _ in range(group.layers)]
        self.down = nn.ModuleList(
            Layer(group, latent_channels, size, style) for group, size in zip(layer_groups, inputs, strict=True)
        )
        # Between the image and the largest maps with latents there are plain convolutions.
        first, plain = self.groups[0], Style(3, 0, activation, norm)
        widths = [width] * first.halvings
        channels = self.encoder_shape[0]
        stem = halvings(channels, widths, plain, "stride") if widths else convolution(channels, width, plain)
        self.stem = nn.Sequential(*stem)
        outputs = doublings(widths, sizes(image, first.halvings), plain, "even") if widths else []
        outputs.append(nn.Conv2d(width, self.likelihood.parameter_shape[0], 3, padding=1))
        self.decoder = Layers((width, *first.size), self.likelihood.parameter_shape, outputs, "torch")

    @classmethod
    @override
    def num_layers(cls, **settings: Any) -> int:
        groups = settings["groups"]
        return DEFAULT_LAYERS if groups is None else max(1, sum(group[1] for group in groups if len(group) == 2))

    @classmethod
    @override
    def check_compatible(cls, **settings: Any) -> dict[str, Incompatible]:
        groups = settings["groups"]
        if groups is None:
            return {}
        sides = [group[0] for group in groups if group]
        if groups and all(len(group) == 2 for group in groups) and all(a > b for a, b in pairwise(sides)):
            return {}
        reason = "needs pairs of a size and a number of layers, from the largest size to the smallest"
        return {"groups": Incompatible(reason, {"model.groups": "[[8,2],[4,3]]"})}

    @property
    @override
    def latent_shapes(self) -> tuple[Shape, ...]:
        return tuple((self.latent_channels, *group.size) for group in self.groups[::-1] for _ in range(group.layers))

    @override
    def inference_parameters(self) -> list[nn.Parameter]:
        modules = (self.stem, self.up, *(layer.posterior for layer in self._layers()), *self.condition_networks())
        return [p for module in modules for p in module.parameters()]

    @override
    def decoder_parameters(self) -> list[nn.Parameter]:
        inference = {id(p) for p in self.inference_parameters()}
        likelihood = {id(p) for p in self.likelihood.parameters()}
        return [p for p in self.parameters() if id(p) not in inference | likelihood]

    @override
    def bottom_up(self, x: Tensor) -> Sequence[Tensor]:
        h, blocks = self.stem(x), iter(self.up)
        features: list[Tensor] = []
        halved = self.groups[0].halvings
        for group in self.groups:
            for _ in range(group.halvings - halved):
                h = F.avg_pool2d(h, 2, ceil_mode=True)
            halved = group.halvings
            for cell in islice(blocks, group.layers):
                h = h + cell(h)
            features += [h] * group.layers
        return features[::-1]

    @override
    def top_down(self, choose: Choose) -> Tensor:
        state, layers = self.starts[0], iter(enumerate(self._layers()))
        for start, group in zip(self.starts, self.groups[::-1], strict=True):
            if start is not self.starts[0]:
                state = by_rows(partial(F.interpolate, size=group.size), state, 3) + start
            for number, layer in islice(layers, group.layers):
                state = layer.descend(state, partial(choose, number))
        return state

    @override
    def posterior(self, layer: int, features: Tensor, p: Normal, state: Tensor) -> Normal:
        leading = state.shape[:-3] or features.shape[:1]  # the topmost state is the same for all images
        both = [h.expand(*leading, *h.shape[-3:]) for h in (features, state)]
        parameters = by_rows(self._layers()[layer].posterior, torch.cat(both, -3), 3)
        return relative(p, parameters) if self.combine == "relative" else normal(parameters, 3)

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.down if isinstance(layer, Layer)]


def groups_of(image: Size, groups: Sequence[Sequence[int]] | None) -> list[Group]:
    """The groups of a ladder, from the image up.

    Args:
        image: height and width of the image.
        groups: see `Ladder`.

    Raises:
        IncompatibleError: a group is no scale of the image.
    """
    scales = sizes(image, max_depth(image))
    sides = [max(scale) for scale in scales]
    if groups is None:
        usual = [side for side in sides if side in DEFAULT_SIDES] or [next(s for s in sides if s < DEFAULT_SIDES.stop)]
        groups = [(side, DEFAULT_LAYERS) for side in usual]
    for side, _ in groups:
        if side not in sides:
            listed, nearest = ", ".join(map(str, sides)), min(sides, key=lambda other: abs(other - side))
            reason = f"groups has a size of {side}, but images of {image[0]}x{image[1]} pixels are halved to {listed}"
            fitting = str([[nearest, 2]]).replace(" ", "")
            raise IncompatibleError(Incompatible(reason, {"model.groups": fitting}))
    return [Group(scales[sides.index(side)], sides.index(side), layers) for side, layers in groups]
