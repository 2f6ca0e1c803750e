"""The variational autoencoder with one latent vector; the one place where shapes are plumbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from torch import Tensor, nn
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.model.base import Network, Prior, Shape, SingleLatent
from vae_train.model.condition import Condition
from vae_train.model.family import Likelihood, Posterior
from vae_train.model.start import fit_output_bias
from vae_train.model.trace import Latent, Trace
from vae_train.rng import Rng
from vae_train.util.ranges import Range

if TYPE_CHECKING:
    from vae_train.batch import Batch, Images


class VAE(SingleLatent):
    """p(z) p(x | z) with q(z | x), each made of a network and a family (Kingma & Welling, 2014).

    The five parts arrive as partials: what the configuration knows is given, the shapes are filled in here.

    Args:
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        latent_shape: shape of z; `[D]` for a vector.
        encoder: network from images to the posterior's parameters.
        decoder: network from z to the likelihood's parameters.
        posterior: family of q(z | x).
        prior: distribution of z.
        likelihood: family of p(x | z).
        condition: "label" makes it a model of p(x | y) for the label y, "factors" for all factors of variation:
            encoder, decoder and prior see y (Sohn et al., 2015). None for p(x).
        factor_sizes: number of values of each column of y, the label first.
        output_bias: "data" starts the decoder's last bias where training images are likeliest, see `fit_output_bias`;
            "init" leaves it as the decoder makes it.

    Raises:
        ValueError: the decoder has no last bias to start from the data.
    """

    def __init__(
        self,
        data_shape: Shape,
        levels: int | None,
        latent_shape: list[Annotated[int, Range(1)]],
        encoder: Callable[..., Network],
        decoder: Callable[..., Network],
        posterior: Callable[..., Posterior],
        prior: Callable[..., Prior],
        likelihood: Callable[..., Likelihood],
        condition: Literal["label", "factors"] | None,
        factor_sizes: tuple[int, ...],
        output_bias: Literal["init", "data"],
    ) -> None:
        super().__init__()
        self.data_shape, self.levels, self.latent_shape = tuple(data_shape), levels, tuple(latent_shape)
        self.posterior = posterior(event_shape=self.latent_shape, levels=None)
        self.likelihood = likelihood(event_shape=self.data_shape, levels=levels)
        self.prior = prior(event_shape=self.latent_shape, data_shape=self.data_shape)
        self.condition = self._condition(condition, tuple(factor_sizes))
        given, code = self.data_shape, self.latent_shape
        if self.condition is not None:
            given, code = self.condition.image_shape, self.condition.code_shape
        self.encoder = encoder(in_shape=given, out_shape=self.posterior.parameter_shape)
        self.decoder = decoder(in_shape=code, out_shape=self.likelihood.parameter_shape)
        self.starts_from_data = output_bias == "data"
        if self.starts_from_data and self.decoder.output_bias() is None:
            name = type(self.decoder).__name__
            raise ValueError(f"output_bias=data needs a decoder with a last bias, and {name} has none: use init")

    @override
    def initialize(self, images: Images) -> None:
        self.prior.initialize(images)
        if self.starts_from_data:
            fit_output_bias(self.decoder, self.likelihood, images)

    @override
    def inference_parameters(self) -> list[nn.Parameter]:
        told = [] if self.condition is None else self.condition.channel.parameters()
        return [*self.encoder.parameters(), *self.posterior.parameters(), *told]

    @override
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return self.posterior(self.encoder(x if self.condition is None else self.condition.with_image(x, y)))

    @override
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self._decoded(z, y))

    @override
    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        q = self.encode(batch.x if batch.encoder_input is None else batch.encoder_input, batch.y)
        z, log_q = q.rsample_and_log_prob(rng, num_samples)
        latents = (Latent(z, q, self._prior_given(batch.y), log_q),)
        decoded = self._decoded(z, batch.y)
        return Trace(
            batch.x,
            latents,
            self.likelihood(decoded),
            batch.mask,
            batch.log_det,
            batch.log_bins,
            decoded,
            self.decoder,
            rng,
        )

    @override
    def sample(self, num: int, rng: Rng, temperature: float = 1.0, y: Tensor | None = None) -> Distribution:
        if self.condition is None:
            return self.decode(self.prior(self.encode).sample(rng, num, temperature))
        if y is None:
            y = self.condition.in_turn(num, next(self.parameters()).device)
        p = self._prior_given(y)
        z = p.sample(rng, 1, temperature)[0] if p.batch_shape else p.sample(rng, num, temperature)
        return self.decode(z, y)

    def _decoded(self, z: Tensor, y: Tensor | None) -> Tensor:
        """The decoder's output with shape `(*N, *parameter_shape)`."""
        leading = z.shape[: z.dim() - len(self.latent_shape)]
        code = z if self.condition is None else self.condition.with_code(z, y)
        decoded = self.decoder(code.reshape(-1, *code.shape[len(leading) :]))
        return decoded.reshape(*leading, *self.likelihood.parameter_shape)

    def _prior_given(self, y: Tensor | None) -> Distribution:
        p = self.prior(self.encode)
        if self.condition is None or self.condition.prior is None:
            return p
        return self.prior.given(p, *self.condition.moments(y))

    def _condition(self, kind: str | None, sizes: tuple[int, ...]) -> Condition | None:
        if kind is None:
            return None
        if not sizes:
            raise ValueError(f"condition={kind} needs labels, and the data has none")
        used = sizes[:1] if kind == "label" else sizes
        return Condition(used, self.data_shape, self.latent_shape, self.prior.accepts_condition)
