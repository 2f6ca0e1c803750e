"""Base classes of models and their components."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Batch, Images, Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.codes import Codebook
from vae_train.model.condition import Condition
from vae_train.model.trace import Latent, Trace
from vae_train.model.traits import CAPABILITIES, LayerTraits, ModelTraits, Support, component
from vae_train.rng import Rng
from vae_train.util.errors import Incompatible

Part = Literal["encoder", "decoder"]
"""A part of a model that training can leave unchanged: q(z | x), or p(x | z)."""

Encode = Callable[[Tensor], Distribution]
"""Images `(N, C, H, W)` -> posteriors with batch (N,)."""


class Network(nn.Module, ABC):
    """Maps a tensor to a tensor, with exactly one leading dimension.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)

    @classmethod
    def supported(cls, **settings: Any) -> frozenset[str]:
        """The capabilities of a network with these settings, see `vae_train.model.traits.CAPABILITIES`.

        Args:
            settings: arguments of the constructor.
        """
        return CAPABILITIES

    def output_bias(self) -> Tensor | None:
        """The last layer's bias, with a shape that broadcasts to `out_shape`; None if the last layer has no bias."""
        return None

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:
        """Maps `(N, *in_shape)` to `(N, *out_shape)`."""


class Prior(nn.Module, ABC):
    """The distribution of one latent.

    Args:
        event_shape: shape of z; for a prior over codes, the shape of the indices of one z.
        data_shape: (C, H, W) of an image, for priors with pseudo-inputs.
        num_codes: number of values of an index, for priors over codes; None for others.
    """

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    supports: ClassVar[tuple[Support, ...]] = ("real",)
    """Where z may live."""
    over_codes: ClassVar[bool] = False
    """Whether it is a distribution of indices instead of z. The model maps these to z, see `Codes`."""
    is_factorized: ClassVar[bool] = False
    """Whether the elements of z are independent."""
    accepts_condition: ClassVar[bool] = True
    """Whether it can depend on the condition y, see `condition`."""
    uses_encoder: ClassVar[bool] = False
    """Whether it uses the encoder, so that its parameters include those of q(z | x)."""
    has_temperature: ClassVar[bool] = True
    """Whether its samples depend on the temperature."""
    max_map_size: ClassVar[int | None] = None
    """Largest number of elements of a map (C, H, W) that it takes as one vector; None for no limit."""

    def __init__(self, event_shape: Shape, data_shape: Shape, num_codes: int | None = None) -> None:
        super().__init__()
        self.event_shape, self.data_shape = tuple(event_shape), tuple(data_shape)
        self.num_codes = num_codes
        self.size = math.prod(event_shape)

    @classmethod
    def check_compatible(cls, layer: LayerTraits, **settings: Any) -> Incompatible | None:
        """Why this prior is incompatible with a posterior; None if it is compatible.

        Args:
            layer: traits of the posterior.
            settings: arguments of the constructor.
        """
        if layer.support in cls.supports:
            return None
        return Incompatible(
            f"has support {_SUPPORT_NAMES[cls.supports[0]]}, but the posterior has support "
            f"{_SUPPORT_NAMES[layer.support]}",
            {"prior": SIMPLEST_PRIOR[layer.support]},
        )

    def initialize(self, images: Images) -> None:
        """Initialises parameters from the training images; called once per run, before the first step."""

    def condition(self, p: Distribution, shift: Tensor, log_scale: Tensor) -> Distribution:
        """p(z | y) of a conditional model, which equals `p` if both maps of y are 0.

        Args:
            p: the result of `forward`.
            shift: tensor with shape `(B, *event_shape)`, a map of y.
            log_scale: tensor with shape `(B, *event_shape)`, a map of y.

        Returns:
            A distribution with batch (B,).
        """
        return p.affine(shift, log_scale)

    def statistics(self, latent: Latent) -> dict[str, Tensor]:
        """Detached means over the batch for `update_state`; empty if the prior has no state."""
        return {}

    def update_state(self, statistics: dict[str, Tensor]) -> None:
        """Updates running averages in place, once per step. Does nothing without a state."""

    @abstractmethod
    def forward(self, encode: Encode) -> Distribution:
        """The prior, batch ().

        Args:
            encode: maps images to posteriors, for priors that consist of these.
        """


_SUPPORT_NAMES: dict[Support, str] = {
    "real": "R^D",
    "sphere": "the unit sphere",
    "categorical": "one-hot categories",
    "joint": "R^D and one-hot categories",
    "codes": "codes",
}
SIMPLEST_PRIOR: dict[Support, str] = {
    "real": "standard_normal",
    "sphere": "uniform_sphere",
    "categorical": "categorical",
    "joint": "joint",
    "codes": "uniform_codes",
}
"""Support of z -> name of the simplest prior with that support."""


class LatentVariableModel(nn.Module, ABC):
    """p(x, z) with an approximate posterior q(z | x)."""

    data_shape: Shape
    levels: int | None
    condition: Condition | None
    """The condition of the model, if any."""
    frozen: Part | None = None
    """The part that `freeze` excluded from training."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = None

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @classmethod
    @abstractmethod
    def traits(cls, **settings: Any) -> ModelTraits:
        """Properties of a model with these settings.

        Args:
            settings: arguments of the constructor in the configuration; components are partials.
        """

    @classmethod
    def check_compatible(cls, **settings: Any) -> dict[str, Incompatible]:
        """Setting -> why its value is incompatible with the others.

        Args:
            settings: see `traits`.
        """
        return {}

    @classmethod
    def check_data(cls, levels: int | None, **settings: Any) -> dict[str, Incompatible]:
        """Setting -> why its value is incompatible with data with `levels` levels.

        Args:
            levels: number of values that a pixel can take; None for continuous data.
            settings: see `traits`; the likelihood may be missing.
        """
        if "likelihood" not in settings:
            return {}
        likelihood, likelihood_settings = component(settings["likelihood"])
        error = likelihood.check_compatible(levels, **likelihood_settings)
        return {} if error is None else {"likelihood": error}

    def initialize(self, images: Images) -> None:
        """Initialises parameters from the training images; called once per run, before the first step."""

    def inference_parameters(self) -> list[nn.Parameter]:
        """The parameters of q(z | x), which some objectives train with a separate loss."""
        raise NotImplementedError(f"{type(self).__name__} does not list the parameters of q(z | x)")

    def decoder_parameters(self) -> list[nn.Parameter]:
        """The parameters of the networks that map z to p(x | z), which some objectives regularise."""
        raise NotImplementedError(f"{type(self).__name__} does not list the parameters of its decoder")

    def freeze(self, part: Part) -> None:
        """Excludes a part from training: its parameters and its state keep their values."""
        parameters = self.inference_parameters() if part == "encoder" else self.decoder_parameters()
        likelihood: nn.Module | None = getattr(self, "likelihood", None)
        if part == "decoder" and likelihood is not None:
            parameters = [*parameters, *likelihood.parameters()]
        for p in parameters:
            p.requires_grad_(False)
        self.frozen = part

    def statistics(self, trace: Trace) -> dict[str, Tensor]:
        """Detached means over the batch for `update_state`.

        Args:
            trace: one pass of training.
        """
        return {}

    def update_state(self, statistics: dict[str, Tensor]) -> None:
        """Updates the state, such as running scales or codebooks, in place, once per step, after the gradients.

        Args:
            statistics: the result of `statistics`, averaged over the whole batch.
        """

    def epoch_metrics(self) -> dict[str, float]:
        """Metrics of the updates since the last call that are not means over images, such as the number of codes used.

        Called at the end of every epoch of training.
        """
        return {}

    @abstractmethod
    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        """One pass of inference; the only entry for training.

        Args:
            batch: images.
            rng: the source of the noise.
            num_samples: K, samples of z per image.
        """

    @property
    @abstractmethod
    def latent_shapes(self) -> tuple[Shape, ...]:
        """The shape of z of every stochastic layer, in the order of `Trace.latents`: the topmost first."""

    @abstractmethod
    def infer(
        self, x: Tensor, y: Tensor | None, rng: Rng, num_samples: int = 1, temperature: float = 1.0
    ) -> tuple[Latent, ...]:
        """The stochastic layers for images, with samples of their posteriors; the topmost first.

        Args:
            x: inputs of the encoder with shape `(B, C, H, W)`.
            y: (B, F) int64, the condition; models without a condition ignore it.
            rng: the source of the noise.
            num_samples: K, samples of z per image.
            temperature: factor on the standard deviation of every posterior; 0 takes its mean.
        """

    @abstractmethod
    def decode_latents(self, z: Sequence[Tensor], y: Tensor | None = None) -> Distribution:
        """p(x | z) with batch (*N,).

        Args:
            z: one tensor `(*N, *shape)` per stochastic layer, in the order of `latent_shapes`.
            y: (N[-1], F) int64, the condition; models without a condition ignore it.
        """

    @abstractmethod
    def sample(
        self, num: int, rng: Rng, temperature: float | Sequence[float] = 1.0, y: Tensor | None = None
    ) -> Distribution:
        """p(x | z) for `num` samples of z from the prior: a distribution of images with batch (num,).

        Args:
            num: number of samples.
            rng: the source of the noise.
            temperature: factor on the prior's standard deviation; or one per stochastic layer, the topmost first. 0
                takes the mean of a prior that has one mode.
            y: (num, F) int64, the condition of every sample. None cycles through the classes.

        Raises:
            ValueError: the number of temperatures is not that of the stochastic layers.
        """

    def condition_of_samples(self, num: int, y: Tensor | None) -> Tensor | None:
        """The condition of `num` samples: `y`, or else all classes of a conditional model in turn."""
        return self.condition.cycle(num, self.device) if y is None and self.condition is not None else y

    def temperatures(self, temperature: float | Sequence[float]) -> tuple[float, ...]:
        """The temperature of every stochastic layer, the topmost first.

        Raises:
            ValueError: see `sample`.
        """
        layers = len(self.latent_shapes)
        if isinstance(temperature, int | float):
            return (temperature,) * layers
        if len(temperature) != layers:
            raise ValueError(
                f"temperature={list(temperature)} has {len(temperature)} values; the model needs one number, or "
                f"{layers}: one per stochastic layer"
            )
        return tuple(temperature)


class SingleLatent(LatentVariableModel):
    """A model with a single latent, with an encoder and a decoder."""

    latent_shape: Shape

    @property
    def codebook(self) -> Codebook | None:
        """The codebook of z; None if z does not consist of codes."""
        return None

    @abstractmethod
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """The posterior with batch (B,).

        Args:
            x: images with shape `(B, C, H, W)`.
            y: (B, F) int64, the condition; models without a condition ignore it.
        """

    @abstractmethod
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """p(x | z) with batch (*N,).

        Args:
            z: latents with shape `(*N, *latent_shape)`.
            y: (N[-1], F) int64, the condition; models without a condition ignore it.
        """

    @property
    @override
    def latent_shapes(self) -> tuple[Shape, ...]:
        return (tuple(self.latent_shape),)

    @override
    def decode_latents(self, z: Sequence[Tensor], y: Tensor | None = None) -> Distribution:
        (only,) = z
        return self.decode(only, y)


def sample_each(p: Distribution, num: int, rng: Rng, temperature: float) -> Tensor:
    """`num` samples `(num, *event)`: of a distribution with batch (), or one of each with batch (num,)."""
    return p.sample(rng, 1, temperature)[0] if p.batch_shape else p.sample(rng, num, temperature)
