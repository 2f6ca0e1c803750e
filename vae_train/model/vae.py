"""The variational autoencoder with one latent, which connects the shapes of its components."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, cast

from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Batch, Images, Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.codes import Codebook, Codes
from vae_train.model.base import Network, Prior, SingleLatent, sample_each
from vae_train.model.condition import ConditionKind, build_condition
from vae_train.model.family import Likelihood, Posterior
from vae_train.model.pairing import pairing_errors
from vae_train.model.start import fit_output_bias, normalize_activations
from vae_train.model.trace import Latent, Trace
from vae_train.model.traits import LayerTraits, ModelTraits, component, network_capabilities
from vae_train.rng import Rng
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import Range


class VAE(SingleLatent):
    """p(z) p(x | z) with q(z | x). Likelihood and posterior each consist of a network and a family.

    Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114. The five components are partials: the
    configuration provides their settings, and shapes are filled in here.

    Args:
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        latent_shape: shape of z; `[D]` for a vector.
        encoder: network from images to the posterior's parameters.
        decoder: network from z to the likelihood's parameters.
        posterior: family of q(z | x).
        prior: distribution of z.
        likelihood: family of p(x | z).
        condition: "label" for a model of p(x | y) with the label y, "factors" with all factors of variation;
            encoder, decoder and prior receive y. None for p(x).
        factor_sizes: number of values of each column of y, the label first.
        output_bias: "data" fits the decoder's last bias to the training images, see `fit_output_bias`;
            "init" keeps the decoder's initialisation.

    Raises:
        ValueError: the decoder has no last bias to fit, or the data has no labels to condition on.
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
        condition: ConditionKind | None,
        factor_sizes: tuple[int, ...],
        output_bias: Literal["init", "data"],
    ) -> None:
        super().__init__()
        self.data_shape, self.levels, self.latent_shape = tuple(data_shape), levels, tuple(latent_shape)
        self.posterior = posterior(event_shape=self.latent_shape)
        self.likelihood = likelihood(event_shape=self.data_shape, levels=levels)
        self.prior = prior(data_shape=self.data_shape, **self._prior_shape())
        accepts = self.prior.accepts_condition
        self.condition = build_condition(condition, factor_sizes, self.data_shape, self.latent_shape, accepts)
        encoder_shape, decoder_shape = self.data_shape, self.latent_shape
        if self.condition is not None:
            encoder_shape, decoder_shape = self.condition.encoder_shape, self.condition.decoder_shape
        self.encoder = encoder(in_shape=encoder_shape, out_shape=self.posterior.parameter_shape)
        self.decoder = decoder(in_shape=decoder_shape, out_shape=self.likelihood.parameter_shape)
        self.starts_from_data = output_bias == "data"
        if self.starts_from_data and self.decoder.output_bias() is None:
            raise ValueError(
                f"output_bias=data needs a decoder with a last bias; {type(self.decoder).__name__} has none"
            )

    @classmethod
    @override
    def traits(cls, **settings: Any) -> ModelTraits:
        posterior, _ = component(settings["posterior"])
        prior, _ = component(settings["prior"])
        likelihood, likelihood_settings = component(settings["likelihood"])
        layer = LayerTraits(
            posterior.support,
            posterior.has_density,
            posterior.has_tractable_density,
            posterior.is_factorized,
            posterior.supports_stop_gradient,
            prior.is_factorized,
            prior.uses_encoder,
            posterior.is_quantized,
        )
        return ModelTraits(
            (layer,),
            likelihood.warning,
            posterior.capabilities & prior.capabilities & likelihood.capabilities & network_capabilities(settings),
            likelihood.couples_batch(**likelihood_settings),
        )

    @classmethod
    @override
    def check_compatible(cls, **settings: Any) -> dict[str, Incompatible]:
        (layer,) = cls.traits(**settings).layers
        return pairing_errors(layer, settings)

    @override
    def initialize(self, images: Images) -> None:
        self.prior.initialize(images)
        normalize_activations(self, images)
        if self.starts_from_data:
            fit_output_bias(self.decoder, self.likelihood, images)
        self.posterior.initialize(images, lambda batch: self._posterior_parameters(batch.x, batch.y))

    @override
    def inference_parameters(self) -> list[nn.Parameter]:
        condition = [] if self.condition is None else self.condition.channel.parameters()
        return [*self.encoder.parameters(), *self.posterior.parameters(), *condition]

    @override
    def decoder_parameters(self) -> list[nn.Parameter]:
        return list(self.decoder.parameters())

    @override
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return self.posterior(self._posterior_parameters(x, y))

    @override
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        h = z if self.condition is None else self.condition.decoder_input(z, y)
        return self.likelihood.decode(self.decoder, h)

    @override
    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        encoder_input = batch.x if batch.encoder_input is None else batch.encoder_input
        latents = self.infer(encoder_input, batch.y, rng, num_samples)
        px = self.decode_latents([latent.z for latent in latents], batch.y)
        return Trace(batch.x, batch.mask, latents, px, batch.log_det, batch.log_bins)

    @override
    def infer(
        self, x: Tensor, y: Tensor | None, rng: Rng, num_samples: int = 1, temperature: float = 1.0
    ) -> tuple[Latent, ...]:
        q, log_q = self.encode(x, y), None
        if temperature == 1.0:
            z, log_q = q.rsample_and_log_prob(rng, num_samples)
        elif temperature == 0.0:
            z = q.mean.expand(num_samples, *q.mean.shape)
        else:
            z = q.sample(rng, num_samples, temperature)
        return (Latent(z, q, self.prior_of(y), self.posterior.auxiliary(q), log_q),)

    @override
    def sample(
        self, num: int, rng: Rng, temperature: float | Sequence[float] = 1.0, y: Tensor | None = None
    ) -> Distribution:
        (temperature,) = self.temperatures(temperature)
        y = self.condition_of_samples(num, y)
        return self.decode(sample_each(self.prior_of(y), num, rng, temperature), y)

    @override
    def statistics(self, trace: Trace) -> dict[str, Tensor]:
        (latent,) = trace.latents
        parts = {
            "posterior": self.posterior.statistics(latent),
            "prior": self.prior.statistics(latent),
            "likelihood": self.likelihood.statistics(trace),
        }
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        frozen = {"encoder": "posterior", "decoder": "likelihood"}.get(self.frozen or "")
        for part in {"posterior", "prior", "likelihood"} - {frozen}:
            prefix = f"{part}."
            own = {k.removeprefix(prefix): v for k, v in statistics.items() if k.startswith(prefix)}
            getattr(self, part).update_state(own)

    @property
    @override
    def codebook(self) -> Codebook | None:
        return self.posterior if isinstance(self.posterior, Codebook) else None

    @override
    def epoch_metrics(self) -> dict[str, float]:
        return self.posterior.epoch_metrics()

    def prior_of(self, y: Tensor | None = None) -> Distribution:
        """p(z), or p(z | y) of a conditional model: batch () or (B,).

        Args:
            y: (B, F) int64, the condition; models without a condition ignore it.
        """
        p = self.prior(self.encode)
        if self.prior.over_codes:
            return Codes(p, cast(Codebook, self.posterior))
        if self.condition is None or self.condition.prior is None:
            return p
        return self.prior.condition(p, *self.condition.moments(y))

    def _posterior_parameters(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.encoder(x if self.condition is None else self.condition.encoder_input(x, y))

    def _prior_shape(self) -> dict[str, Any]:
        posterior: Any = self.posterior
        if posterior.support != "codes":
            return {"event_shape": self.latent_shape}
        return {"event_shape": posterior.code_shape, "num_codes": posterior.num_codes}
