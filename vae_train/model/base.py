"""Base classes of models and of their parts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vae_train.batch import Batch, Images, Shape
from vae_train.distributions.base import Distribution
from vae_train.model.condition import Condition
from vae_train.model.trace import Latent, Trace
from vae_train.model.traits import CAPABILITIES, LayerTraits, ModelTraits, Support
from vae_train.rng import Rng
from vae_train.util.errors import Incompatible

Encode = Callable[[Tensor], Distribution]
"""Images `(N, C, H, W)` -> posteriors with batch (N,)."""


class Network(nn.Module, ABC):
    """Tensor -> tensor, with exactly one leading dimension.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)

    def output_bias(self) -> Tensor | None:
        """The last layer's bias, with a shape that broadcasts to `out_shape`; None if the last layer has no bias."""
        return None

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:
        """Maps `(N, *in_shape)` to `(N, *out_shape)`."""


class Prior(nn.Module, ABC):
    """() -> distribution of one latent.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image, for priors with pseudo-inputs.
    """

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    supports: ClassVar[tuple[Support, ...]] = ("real",)
    """Where z may live."""
    is_factorized: ClassVar[bool] = False
    """Whether the elements of z are independent."""
    accepts_condition: ClassVar[bool] = True
    """Whether a conditional model can make it depend on y, see `condition`."""
    uses_encoder: ClassVar[bool] = False
    """Whether it calls `encode`, so that its parameters include those of q(z | x)."""

    def __init__(self, event_shape: Shape, data_shape: Shape) -> None:
        super().__init__()
        self.event_shape, self.data_shape = tuple(event_shape), tuple(data_shape)
        self.size = math.prod(event_shape)

    @classmethod
    def check_compatible(cls, layer: LayerTraits, **settings: Any) -> Incompatible | None:
        """Why this prior does not fit a posterior; None if it does.

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
        """Called once per run before the first step, for parameters that start from the training images."""

    def condition(self, p: Distribution, shift: Tensor, log_scale: Tensor) -> Distribution:
        """p(z | y) of a conditional model. It equals `p` where both maps of y are 0.

        Args:
            p: what `forward` returned.
            shift: tensor with shape `(B, *event_shape)`, a map of y.
            log_scale: tensor with shape `(B, *event_shape)`, a map of y.

        Returns:
            A distribution with batch (B,).
        """
        return p.affine(shift, log_scale)

    def statistics(self, latent: Latent) -> dict[str, Tensor]:
        """Detached means over the batch by which the prior's state moves; empty if it has no state."""
        return {}

    def update_state(self, statistics: dict[str, Tensor]) -> None:
        """Moves running averages in place, once per update. Priors without a state ignore it."""

    @abstractmethod
    def forward(self, encode: Encode) -> Distribution:
        """The prior, batch ().

        Args:
            encode: maps images to posteriors, for priors that are made of them.
        """


_SUPPORT_NAMES: dict[Support, str] = {
    "real": "R^D",
    "sphere": "the unit sphere",
    "categorical": "one-hot categories",
    "joint": "R^D and one-hot categories",
}
SIMPLEST_PRIOR: dict[Support, str] = {
    "real": "standard_normal",
    "sphere": "uniform_sphere",
    "categorical": "categorical",
    "joint": "joint",
}
"""Support of z -> name of the simplest prior with that support."""


class LatentVariableModel(nn.Module, ABC):
    """p(x, z) with an approximate posterior q(z | x)."""

    data_shape: Shape
    levels: int | None
    condition: Condition | None
    """What the model is conditioned on, if anything."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @classmethod
    @abstractmethod
    def traits(cls, **settings: Any) -> ModelTraits:
        """Properties of the model that these settings describe.

        Args:
            settings: arguments of the constructor, as far as the configuration knows them; parts are partials.
        """

    @classmethod
    def check_compatible(cls, **settings: Any) -> dict[str, Incompatible]:
        """Setting -> why its value does not fit the other settings.

        Args:
            settings: see `traits`.
        """
        return {}

    @classmethod
    def check_data(cls, levels: int | None, **settings: Any) -> dict[str, Incompatible]:
        """Setting -> why its value does not fit data with `levels` levels.

        Args:
            levels: number of values that a pixel can take; None for continuous data.
            settings: see `traits`.
        """
        return {}

    def initialize(self, images: Images) -> None:
        """Called once per run before the first step, for parameters that start from the training images."""

    def inference_parameters(self) -> list[nn.Parameter]:
        """The parameters of q(z | x), which some objectives train by a separate loss."""
        raise NotImplementedError(f"{type(self).__name__} does not separate inference from generation")

    def decoder_parameters(self) -> list[nn.Parameter]:
        """The parameters of the networks that map z to p(x | z), which some objectives regularise."""
        raise NotImplementedError(f"{type(self).__name__} does not say which parameters belong to its decoder")

    def statistics(self, trace: Trace) -> dict[str, Tensor]:
        """Detached means over the batch by which the model's state moves: running scales, codebooks.

        Args:
            trace: one pass of training.
        """
        return {}

    def update_state(self, statistics: dict[str, Tensor]) -> None:
        """Moves the state in place, once per update, after the gradients.

        Args:
            statistics: what `statistics` returned, averaged over the whole batch.
        """

    @abstractmethod
    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        """One pass of inference; the only entry for training.

        Args:
            batch: images.
            rng: the source of the noise.
            num_samples: K, samples of z per image.
        """

    @abstractmethod
    def sample(self, num: int, rng: Rng, temperature: float = 1.0, y: Tensor | None = None) -> Distribution:
        """p(x | z) for `num` samples of z from the prior: a distribution of images with batch (num,).

        Args:
            num: number of samples.
            rng: the source of the noise.
            temperature: factor on the prior's standard deviation.
            y: (num, F) int64, the condition of every sample. None cycles through the classes.
        """


class SingleLatent(LatentVariableModel):
    """A model with one latent, which can be encoded to and decoded from."""

    latent_shape: Shape

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
