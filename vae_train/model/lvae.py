"""The Ladder VAE: several latent vectors of decreasing size, with multi-layer perceptrons between them.

Sønderby et al., 2016, Ladder Variational Autoencoders, arXiv:1602.02282. With d_0 = x, a bottom-up pass computes
d_i = MLP(d_(i-1)) and from it the mean and the variance μ̂_i, σ̂_i². A top-down pass, which inference and generation
share, computes p(z_i | z above) = N(μ_i, σ_i²). The posterior combines both, eq. 19 and 20 of the paper:

    q(z_i | z above, x) = N((μ̂_i σ̂_i⁻² + μ_i σ_i⁻²) / (σ̂_i⁻² + σ_i⁻²),  1 / (σ̂_i⁻² + σ_i⁻²))
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.normal import Normal
from vae_train.model.base import Network
from vae_train.model.blocks.layers import Activation, by_rows, nonlinearity
from vae_train.model.condition import ConditionKind
from vae_train.model.family import Likelihood
from vae_train.model.hierarchy import Choose, Hierarchy, normal, relative
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import PositiveInt

Combine = Literal["precision", "relative"]
MLPNorm = Literal["none", "layer"]


class LadderVAE(Hierarchy):
    """A hierarchy of latent vectors; the topmost has a standard normal prior.

    Deviations from the paper: no BatchNorm, with which an image's ELBO would depend on its batch.

    Args:
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        latents: size of z of every layer, from the image up: the last one is the topmost.
        hidden: units of the two-layer perceptrons of every layer, in the same order.
        combine: "precision" weights the two estimates of z by their precision as in the paper; "relative" predicts the
            difference to the prior from both (Vahdat & Kautz, 2020, NVAE, arXiv:2007.03898, section 3.2).
        skip: pass the hidden units of the layer above down besides its z, so that z below and x depend on all layers.
        activation: the nonlinearity.
        norm: normalisation of the hidden units: "layer" for LayerNorm, "none" for none.
        likelihood: family of p(x | z).
        condition: see `Hierarchy`.
        factor_sizes: see `Hierarchy`.
        output_bias: "data" fits the last bias to the training images, see `fit_output_bias`; "init" keeps it.
    """

    def __init__(
        self,
        data_shape: Shape,
        levels: int | None,
        latents: list[PositiveInt],
        hidden: list[PositiveInt],
        combine: Combine,
        skip: bool,
        activation: Activation,
        norm: MLPNorm,
        likelihood: Callable[..., Likelihood],
        condition: ConditionKind | None,
        factor_sizes: tuple[int, ...],
        output_bias: Literal["init", "data"],
    ) -> None:
        super().__init__(data_shape, levels, (latents[-1],), likelihood, condition, factor_sizes, output_bias)
        self.sizes, self.combine, self.skip = list(reversed(latents)), combine, skip
        widths = [math.prod(self.encoder_shape), *hidden]

        def perceptron(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for size in (inputs, outputs):
                layers += [nn.Linear(size, outputs), nn.LayerNorm(outputs) if norm == "layer" else nn.Identity()]
                layers.append(nonlinearity(activation))
            return nn.Sequential(*layers)

        self.up = nn.ModuleList(perceptron(*sizes) for sizes in zip(widths[:-1], hidden, strict=True))
        widths = hidden[::-1]  # from here on the topmost is first
        states = [0, *widths[:-1]]
        self.heads = nn.ModuleList(
            nn.Linear(width + (state if combine == "relative" else 0), 2 * size)
            for width, state, size in zip(widths, states, self.sizes, strict=True)
        )
        passed = [state if skip else 0 for state in states]
        self.down = nn.ModuleList(
            perceptron(size + extra, width)
            for size, extra, width in zip([*self.top_shape, *self.sizes[1:]], passed, widths, strict=True)
        )
        self.priors = nn.ModuleList(
            nn.Linear(*sizes) for sizes in zip(widths[:-1], [2 * n for n in self.sizes[1:]], strict=True)
        )
        self.decoder = Output(widths[-1], self.likelihood.parameter_shape)
        self.zero = nn.Buffer(torch.zeros(self.sizes[0]), persistent=False)

    @classmethod
    @override
    def num_layers(cls, **settings: Any) -> int:
        return max(len(settings["latents"]), 1)

    @classmethod
    @override
    def check_compatible(cls, **settings: Any) -> dict[str, Incompatible]:
        latents, hidden = settings["latents"], settings["hidden"]
        if not latents:
            return {"latents": Incompatible("needs at least one layer", {"model.latents": "[64,32,16,8,4]"})}
        if len(latents) == len(hidden):
            return {}
        units = [512 // 2**i for i in range(len(latents))]
        reason = f"has {len(hidden)} values, but latents has {len(latents)} layers"
        return {"hidden": Incompatible(reason, {"model.hidden": str(units).replace(" ", "")})}

    @property
    @override
    def latent_shapes(self) -> tuple[Shape, ...]:
        return tuple((size,) for size in self.sizes)

    @override
    def inference_parameters(self) -> list[nn.Parameter]:
        modules = (self.up, self.heads, *self.condition_networks())
        return [p for module in modules for p in module.parameters()]

    @override
    def decoder_parameters(self) -> list[nn.Parameter]:
        return [*self.down.parameters(), *self.priors.parameters(), *self.decoder.parameters()]

    @override
    def bottom_up(self, x: Tensor) -> Sequence[Tensor]:
        h, features = x.flatten(1), []
        for block in self.up:
            h = block(h)
            features.append(h)
        return features[::-1]

    @override
    def top_down(self, choose: Choose) -> Tensor:
        state: Tensor = self.zero
        p = Normal(self.zero, self.zero)
        for layer, block in enumerate(self.down):
            if layer:
                p = normal(by_rows(self.priors[layer - 1], state, 1), 1)
            z = choose(layer, p, state)
            state = by_rows(block, torch.cat([z, state], -1) if layer and self.skip else z, 1)
        return state

    @override
    def posterior(self, layer: int, features: Tensor, p: Normal, state: Tensor) -> Normal:
        head = self.heads[layer]
        if layer == 0:
            return normal(head(features), 1)
        if self.combine == "precision":
            return weighted(normal(head(features), 1), p)
        both = torch.cat([features.expand(*state.shape[:-1], -1), state], -1)
        return relative(p, by_rows(head, both, 1))


class Output(Network):
    """A linear layer from a vector to the likelihood's parameters.

    Args:
        inputs: size of the vector.
        out_shape: shape of the parameters.
    """

    def __init__(self, inputs: int, out_shape: Shape) -> None:
        super().__init__((inputs,), out_shape)
        self.linear = nn.Linear(inputs, math.prod(out_shape))

    @override
    def output_bias(self) -> Tensor:
        return self.linear.bias.view(self.out_shape)

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h).view(-1, *self.out_shape)


def weighted(q: Normal, p: Normal) -> Normal:
    """The product of two normal densities, normalised: means weighted by their precisions, which add up."""
    log_precision_q, log_precision_p = -2 * q.log_scale, -2 * p.log_scale
    log_precision = torch.logaddexp(log_precision_q, log_precision_p)
    share = torch.exp(log_precision_q - log_precision)
    return Normal(p.loc + share * (q.loc - p.loc), -0.5 * log_precision, len(q.event_shape))
