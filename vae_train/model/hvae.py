"""The hierarchical VAE with two latent vectors and any prior on the topmost, with gated dense networks.

Tomczak & Welling, 2018, VAE with a VampPrior, arXiv:1705.07120, section 3. The topmost layer z_1 is z_2 in the paper:

    p(x, z) = p(z_1) p(z_2 | z_1) p(x | z_1, z_2),      q(z | x) = q(z_1 | x) q(z_2 | x, z_1)
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Images, Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import Normal
from vae_train.model.architecture.mlp import MLP
from vae_train.model.base import Network, Prior
from vae_train.model.blocks.layers import by_rows, initialize
from vae_train.model.condition import ConditionKind
from vae_train.model.family import Likelihood
from vae_train.model.hierarchy import Choose, Hierarchy
from vae_train.model.pairing import condition_errors
from vae_train.model.posterior.gaussian import Gaussian
from vae_train.model.traits import ModelTraits, component
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import PositiveInt

NUM_LAYERS = 2


class HVAE(Hierarchy):
    """Two latent vectors; x and the posterior of the lower one depend on both.

    Args:
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        latents: size of z of both layers, from the image up.
        hidden: units of the gated hidden layers.
        log_variance: bounds to which the log-variances of z are clamped; None for none.
        prior: distribution of z of the topmost layer. VampPrior is a mixture of its posteriors.
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
        hidden: PositiveInt,
        log_variance: tuple[float, float] | None,
        prior: Callable[..., Prior],
        likelihood: Callable[..., Likelihood],
        condition: ConditionKind | None,
        factor_sizes: tuple[int, ...],
        output_bias: Literal["init", "data"],
    ) -> None:
        super().__init__(data_shape, levels, (latents[-1],), likelihood, condition, factor_sizes, output_bias)
        self.sizes, self.hidden = list(reversed(latents)), hidden
        top, bottom = self.sizes
        self.top_family, self.bottom_family = Gaussian((top,), log_variance), Gaussian((bottom,), log_variance)
        self.top_encoder, self.image_features, features = self.image_networks(2 * top)
        (top_inputs,) = self.top_shape
        self.features_above = gated(top_inputs, features)
        self.joint_encoder = self._perceptron(2 * features, 2 * bottom, 1)
        self.lower_prior = self._perceptron(top_inputs, 2 * bottom, 2)
        self.top_decoder, self.bottom_decoder = gated(top_inputs, hidden), gated(bottom, hidden)
        self.decoder = self.output_network(2 * hidden)
        self.zero = nn.Buffer(torch.zeros(top), persistent=False)
        self.prior = prior(event_shape=(top,), data_shape=self.data_shape)
        if self.condition is not None and not self.prior.accepts_condition:
            self.condition.prior = None

    def image_networks(self, outputs: int) -> tuple[nn.Module, nn.Module, int]:
        """The networks whose inputs are images.

        Args:
            outputs: number of parameters of the topmost posterior.

        Returns:
            The network of the topmost posterior, the network of features for the lower one, and the number of features.
        """
        pixels = math.prod(self.encoder_shape)
        features = nn.Sequential(nn.Flatten(), gated(pixels, self.hidden))
        return self._perceptron(pixels, outputs, 2), features, self.hidden

    def output_network(self, inputs: int) -> Network:
        """The network from features `(N, inputs)` of both layers to the likelihood's parameters."""
        return MLP((inputs,), self.likelihood.parameter_shape, [self.hidden], "relu", True, "he")

    @classmethod
    @override
    def num_layers(cls, **settings: Any) -> int:
        return NUM_LAYERS

    @classmethod
    @override
    def traits(cls, **settings: Any) -> ModelTraits:
        traits, (prior, _) = super().traits(**settings), component(settings["prior"])
        top, bottom = traits.layers
        top = top._replace(prior_is_factorized=prior.is_factorized, prior_uses_encoder=prior.uses_encoder)
        return traits._replace(layers=(top, bottom), capabilities=traits.capabilities & prior.capabilities)

    @classmethod
    @override
    def check_compatible(cls, **settings: Any) -> dict[str, Incompatible]:
        errors, latents = dict[str, Incompatible](), settings["latents"]
        if len(latents) != NUM_LAYERS:
            reason = f"has {len(latents)} sizes, but the model has {NUM_LAYERS} layers"
            errors["latents"] = Incompatible(reason, {"model.latents": "[40,40]", "model": "lvae"})
        prior, prior_settings = component(settings["prior"])
        layer = cls.traits(**settings).layers[0]
        error = prior.check_compatible(layer, **prior_settings)
        if error is not None:
            errors["prior"] = error
        return errors | condition_errors(layer, settings)

    @property
    @override
    def latent_shapes(self) -> tuple[Shape, ...]:
        return tuple((size,) for size in self.sizes)

    @override
    def initialize(self, images: Images) -> None:
        self.prior.initialize(images)
        super().initialize(images)

    @override
    def inference_parameters(self) -> list[nn.Parameter]:
        images = (self.top_encoder, self.image_features)
        modules = (*images, self.features_above, self.joint_encoder, *self.condition_networks())
        return [p for module in modules for p in module.parameters()]

    @override
    def decoder_parameters(self) -> list[nn.Parameter]:
        modules = (self.lower_prior, self.top_decoder, self.bottom_decoder, self.decoder)
        return [p for module in modules for p in module.parameters()]

    @override
    def bottom_up(self, x: Tensor) -> Sequence[Tensor]:
        return self.top_encoder(x), self.image_features(x)

    @override
    def top_down(self, choose: Choose) -> Tensor:
        top = choose(0, self.prior(self._encode), self.zero)
        return self._below(top, choose(1, self.bottom_family(by_rows(self.lower_prior, top, 1)), top))

    @override
    def posterior(self, layer: int, features: Tensor, p: Distribution, state: Tensor) -> Normal:
        if layer == 0:
            return self.top_family(features)
        above = by_rows(self.features_above, state, 1)
        both = torch.cat([features.expand(*above.shape[:-1], -1), above], -1)
        return self.bottom_family(by_rows(self.joint_encoder, both, 1))

    @override
    def decode_latents(self, z: Sequence[Tensor], y: Tensor | None = None) -> Distribution:
        top, bottom = z  # without the prior, which may encode many pseudo-inputs
        return self.likelihood.decode(self.decoder, self._below(self.append_condition(top, y), bottom))

    @override
    def condition_prior(self, p: Distribution, shift: Tensor, log_scale: Tensor) -> Distribution:
        return self.prior.condition(p, shift, log_scale)

    def _encode(self, x: Tensor) -> Normal:
        """The posterior of the topmost layer."""
        return self.top_family(self.top_encoder(x))

    def _below(self, top: Tensor, bottom: Tensor) -> Tensor:
        """The features that p(x | z) depends on."""
        return torch.cat([by_rows(self.bottom_decoder, bottom, 1), by_rows(self.top_decoder, top, 1)], -1)

    def _perceptron(self, inputs: int, outputs: int, depth: int) -> MLP:
        """Gated layers, followed by a linear one."""
        return MLP((inputs,), (outputs,), [self.hidden] * depth, "relu", True, "he")


def gated(inputs: int, outputs: int) -> nn.Sequential:
    """A layer a · sigmoid(b) with two linear maps a and b (Dauphin et al., 2017, arXiv:1612.08083, eq. 1)."""
    layer = nn.Sequential(nn.Linear(inputs, 2 * outputs), nn.GLU())
    initialize(layer, "he")
    return layer
