"""Base class of models with several stochastic layers.

    p(x, z) = p(x | z_1 … z_L) prod_i p(z_i | z_1 … z_(i-1)),      q(z | x) = prod_i q(z_i | z_1 … z_(i-1), x)

z_1 is the topmost layer. All q(z_i | …) and p(z_i | …) are normal with a diagonal covariance, so that the rate of every
layer has a closed form given the samples above; only the prior of the topmost layer may be another distribution.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vae_train.batch import Batch, Images, Shape
from vae_train.distributions.base import Distribution, promote
from vae_train.distributions.normal import Normal
from vae_train.model.base import LatentVariableModel, Network, sample_each
from vae_train.model.condition import ConditionKind, build_condition
from vae_train.model.family import Likelihood
from vae_train.model.start import fit_output_bias
from vae_train.model.trace import Latent, Trace
from vae_train.model.traits import LayerTraits, ModelTraits, component
from vae_train.rng import Rng

MIN_SCALE = 1e-4
"""Lower bound of the standard deviations of z."""

Choose = Callable[[int, Distribution, Tensor], Tensor]
"""(number of the layer, its prior, its state) -> z with shape `(*N, *shape)`; `(*N, *top_shape)` if topmost."""


class Hierarchy(LatentVariableModel):
    """A model with L stochastic layers, defined by one pass from the images up and one from the topmost layer down.

    Args:
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        latent_shape: shape of z of the topmost layer.
        likelihood: family of p(x | z).
        condition: "label" for a model of p(x | y) with the label y, "factors" with all factors of variation: the
            networks of images, the topmost prior and the networks below it receive y. None for p(x).
        factor_sizes: number of values of each column of y, the label first.
        output_bias: "data" fits the last bias to the training images, see `fit_output_bias`; "init" keeps it.

    Raises:
        ValueError: the data has no labels to condition on.
    """

    decoder: Network
    """Maps the state below the last layer to the likelihood's parameters."""

    def __init__(
        self,
        data_shape: Shape,
        levels: int | None,
        latent_shape: Shape,
        likelihood: Callable[..., Likelihood],
        condition: ConditionKind | None,
        factor_sizes: tuple[int, ...],
        output_bias: Literal["init", "data"],
    ) -> None:
        super().__init__()
        self.data_shape, self.levels = tuple(data_shape), levels
        self.likelihood = likelihood(event_shape=self.data_shape, levels=levels)
        self.condition = build_condition(condition, factor_sizes, self.data_shape, latent_shape, prior=True)
        self.encoder_shape, self.top_shape = self.data_shape, latent_shape
        """Shapes of what `bottom_up` receives, and of the topmost z that `top_down` receives: both with y, if any."""
        if self.condition is not None:
            self.encoder_shape, self.top_shape = self.condition.encoder_shape, self.condition.decoder_shape
        self.starts_from_data = output_bias == "data"

    @classmethod
    @abstractmethod
    def num_layers(cls, **settings: Any) -> int:
        """L; a lower bound if it depends on the image.

        Args:
            settings: see `traits`.
        """

    @classmethod
    @override
    def traits(cls, **settings: Any) -> ModelTraits:
        likelihood, likelihood_settings = component(settings["likelihood"])
        layers = cls.num_layers(**settings)
        # Below the topmost layer, q also depends on the samples above, whose gradient must not stop.
        layer = LayerTraits(supports_stop_gradient=layers == 1, prior_is_factorized=True)
        couples_batch = likelihood.couples_batch(**likelihood_settings)
        return ModelTraits((layer,) * layers, likelihood.warning, likelihood.capabilities, couples_batch)

    @override
    def initialize(self, images: Images) -> None:
        if self.starts_from_data:
            fit_output_bias(self.decoder, self.likelihood, images)

    @abstractmethod
    def bottom_up(self, x: Tensor) -> Sequence[Tensor]:
        """Features of x `(B, *encoder_shape)` for every posterior, the topmost first: tensors `(B, …)`."""

    @abstractmethod
    def top_down(self, choose: Choose) -> Tensor:
        """One pass from the topmost layer down; returns the state below the last layer, `(*N, …)`.

        Args:
            choose: chooses z of every layer, the topmost first. It appends y to the topmost z, see `top_shape`.
        """

    @abstractmethod
    def posterior(self, layer: int, features: Tensor, p: Any, state: Tensor) -> Normal:
        """q(z_i | z_1 … z_(i-1), x) with batch (B,) for the topmost layer, (K, B) for the others.

        Args:
            layer: i - 1.
            features: the layer's features, see `bottom_up`.
            p: the layer's prior; below the topmost layer always a `Normal`.
            state: the state that the prior was computed from.
        """

    @override
    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        x = batch.x if batch.encoder_input is None else batch.encoder_input
        latents, state = self._inferred(x, batch.y, rng, num_samples, 1.0)
        px = self.likelihood.decode(self.decoder, state)
        return Trace(batch.x, batch.mask, latents, px, batch.log_det, batch.log_bins)

    @override
    def infer(
        self, x: Tensor, y: Tensor | None, rng: Rng, num_samples: int = 1, temperature: float = 1.0
    ) -> tuple[Latent, ...]:
        return self._inferred(x, y, rng, num_samples, temperature)[0]

    @override
    def decode_latents(self, z: Sequence[Tensor], y: Tensor | None = None) -> Distribution:
        choose = self._conditional(lambda layer, p, state: z[layer], y)
        return self.likelihood.decode(self.decoder, self.top_down(choose))

    @override
    def sample(
        self, num: int, rng: Rng, temperature: float | Sequence[float] = 1.0, y: Tensor | None = None
    ) -> Distribution:
        temperatures, shapes = self.temperatures(temperature), self.latent_shapes
        y = self.condition_of_samples(num, y)

        def choose(layer: int, p: Distribution, state: Tensor) -> Tensor:
            if isinstance(p, Normal):
                return _sample(p, rng, (1, num, *shapes[layer]), temperatures[layer])[0]
            return sample_each(p, num, rng, temperatures[layer])

        return self.likelihood.decode(self.decoder, self.top_down(self._conditional(choose, y)))

    @override
    def statistics(self, trace: Trace) -> dict[str, Tensor]:
        return self.likelihood.statistics(trace)

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        if self.frozen != "decoder":
            self.likelihood.update_state(statistics)

    def condition_networks(self) -> tuple[nn.Module, ...]:
        """The networks of y that are part of inference; empty without a condition."""
        return () if self.condition is None else (self.condition.channel,)

    def condition_prior(self, p: Distribution, shift: Tensor, log_scale: Tensor) -> Distribution:
        """The topmost prior of a conditional model, see `Prior.condition`."""
        return p.affine(shift, log_scale)

    def append_condition(self, top: Tensor, y: Tensor | None) -> Tensor:
        """Appends y to the topmost z `(*N, *shape)`: `(*N, *top_shape)`; unconditional models do not change it."""
        return top if self.condition is None else self.condition.decoder_input(top, y)

    def _conditional(self, choose: Choose, y: Tensor | None) -> Choose:
        """Makes the topmost prior and the networks below it depend on y."""
        condition = self.condition
        if condition is None:
            return choose

        def conditional(layer: int, p: Distribution, state: Tensor) -> Tensor:
            if layer > 0:
                return choose(layer, p, state)
            if condition.prior is not None:
                p = self.condition_prior(p, *condition.moments(y))
            return self.append_condition(choose(layer, p, state), y)

        return conditional

    def _inferred(
        self, x: Tensor, y: Tensor | None, rng: Rng, num_samples: int, temperature: float
    ) -> tuple[tuple[Latent, ...], Tensor]:
        """The layers, and the state below the last one."""
        features = self.bottom_up(x if self.condition is None else self.condition.encoder_input(x, y))
        shapes = self.latent_shapes
        latents: list[Latent] = []

        def choose(layer: int, p: Distribution, state: Tensor) -> Tensor:
            q, shape = self.posterior(layer, features[layer], p, state), (num_samples, x.shape[0], *shapes[layer])
            z = q.loc.expand(shape) if temperature == 0 else _sample(q, rng, shape, temperature)
            latents.append(Latent(z, q, p))
            return z

        state = self.top_down(self._conditional(choose, y))
        return tuple(latents), state


def normal(parameters: Tensor, event_ndim: int) -> Normal:
    """A normal distribution, whose mean and raw scale a are the two halves of the parameters.

    The standard deviation softplus(ln 2 · a) / ln 2 is 1 at a = 0 and grows linearly, so that no gradient explodes
    (Hazami et al., 2022, Efficient-VDVAE, arXiv:2203.13751, section 4.2). It is computed in at least float32.
    """
    mean, raw = promote(parameters).chunk(2, -event_ndim)
    return Normal(mean, log_softplus(raw), event_ndim)


def relative(p: Normal, parameters: Tensor) -> Normal:
    """A normal distribution relative to another: its mean is shifted by scales of `p`, its scale is multiplied.

    Vahdat & Kautz, 2020, NVAE, arXiv:2007.03898, section 3.2. Parameters of 0 give `p`.

    Args:
        p: the other distribution.
        parameters: shift and raw factor, as the two halves of the first event dimension.
    """
    shift, raw = promote(parameters).chunk(2, -len(p.event_shape))
    return Normal(p.loc + p.log_scale.exp() * shift, p.log_scale + log_softplus(raw), len(p.event_shape))


def log_softplus(raw: Tensor) -> Tensor:
    """log(softplus(ln 2 · raw) / ln 2 + `MIN_SCALE`), elementwise; nearly 0 at 0."""
    return (F.softplus(math.log(2) * raw) / math.log(2) + MIN_SCALE).log()


def _sample(p: Normal, rng: Rng, shape: Shape, temperature: float) -> Tensor:
    """Samples with shape (K, B, *event), which `p` broadcasts to, so that noise belongs to samples and images."""
    z = p.loc + temperature * p.log_scale.exp() * p.unit_sample(rng, shape, p.loc.dtype)
    return z.expand(shape)
