"""What every model is to the rest of the program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from vae_train.distributions.base import Distribution
from vae_train.model.condition import Condition
from vae_train.model.family import CAPABILITIES, Posterior, Support
from vae_train.model.trace import Trace
from vae_train.rng import Rng

if TYPE_CHECKING:
    from vae_train.batch import Batch, Images

Shape = tuple[int, ...]


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
        """The last layer's bias, with a shape that broadcasts to `out_shape`; None where there is no such thing."""
        return None

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:
        """Maps `(N, *in_shape)` to `(N, *out_shape)`."""


class Prior(nn.Module, ABC):
    """() -> distribution of one latent.

    Args:
        event_shape: shape of one draw.
        data_shape: (C, H, W) of an image, for priors that hold pseudo-inputs.
    """

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    supports: ClassVar[tuple[Support, ...]] = ("real",)
    """Where it may live, see `Posterior.support`."""
    is_factorized: ClassVar[bool] = False
    """Whether the elements of z are independent, see `Distribution.is_factorized`."""
    accepts_condition: ClassVar[bool] = True
    """Whether it can be another one for every y that a model is conditioned on, see `given`."""
    uses_encoder: ClassVar[bool] = False
    """Whether it calls `encode`, so that the parameters of q(z | x) are its own as well."""

    def __init__(self, event_shape: Shape, data_shape: Shape) -> None:
        super().__init__()
        self.event_shape, self.data_shape = tuple(event_shape), tuple(data_shape)

    @classmethod
    def refusal(cls, posterior: type[Posterior], **knobs: Any) -> str | None:
        """Why this prior cannot stand beside `posterior`, and what could; None where it can."""
        if posterior.support in cls.supports:
            return None
        return (
            f"has support {_PLACES[cls.supports[0]]}, but the posterior has support {_PLACES[posterior.support]}. "
            f"Use model/prior={USUAL_PRIOR[posterior.support]}"
        )

    def initialize(self, images: Images) -> None:
        """Called once per run before the first step, see `LatentVariableModel.initialize`."""

    def given(self, p: Distribution, shift: Tensor, log_scale: Tensor) -> Distribution:
        """The prior of a conditional model, p(z | y), which is `p` itself where both maps of y are 0.

        Args:
            p: what `forward` returned.
            shift: tensor with shape `(B, *event_shape)`, a map of y.
            log_scale: tensor with shape `(B, *event_shape)`, a map of y.

        Returns:
            A distribution with batch (B,).
        """
        return p.affine(shift, log_scale)

    @abstractmethod
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        """The prior, batch (). `encode` maps images `(N, C, H, W)` to posteriors, for priors made of such."""


_PLACES: dict[Support, str] = {
    "real": "R^D",
    "sphere": "the unit sphere",
    "categorical": "categories",
    "joint": "R^D and categories",
}
USUAL_PRIOR: dict[Support, str] = {
    "real": "standard_normal",
    "sphere": "uniform_sphere",
    "categorical": "categorical",
    "joint": "joint",
}
"""The name of the simplest prior where z lives."""


class LatentVariableModel(nn.Module, ABC):
    """p(x, z) with an approximate posterior q(z | x)."""

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    data_shape: Shape
    levels: int | None
    condition: Condition | None
    """What it is conditioned on, if anything."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = None

    def initialize(self, images: Images) -> None:
        """Called once per run before the first step, for parameters that start from the training images."""

    def inference_parameters(self) -> list[nn.Parameter]:
        """Those of q(z | x), which some objectives give a gradient of their own."""
        raise NotImplementedError(f"{type(self).__name__} does not tell inference from generation")

    @abstractmethod
    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        """One pass of inference; the only entry for training.

        Args:
            batch: images.
            draw: the source of the noise.
            num_samples: K, draws of z per image.
        """

    @abstractmethod
    def sample(self, num: int, rng: Rng, temperature: float = 1.0, y: Tensor | None = None) -> Distribution:
        """p(x | z) for `num` draws of z from the prior: a distribution over images with batch (num,).

        Args:
            num: how many draws.
            draw: the source of the noise.
            temperature: factor on the prior's standard deviation.
            y: (num, F) int64, what a conditional model is to draw; None walks through the classes in turn.
        """


class SingleLatent(LatentVariableModel):
    """A model with one latent vector, which can be encoded to and decoded from."""

    latent_shape: Shape

    @abstractmethod
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """The posterior with batch (B,).

        Args:
            x: images with shape `(B, C, H, W)`.
            y: (B, F) int64, what a conditional model is told; others take no notice.
        """

    @abstractmethod
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """p(x | z) with batch (*N,).

        Args:
            z: latents with shape `(*N, *latent_shape)`.
            y: (N[-1], F) int64, see `encode`.
        """
