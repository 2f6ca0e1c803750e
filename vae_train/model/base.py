"""What every model is to the rest of the program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from vae_train.distributions import Distribution
from vae_train.draws import Draw
from vae_train.model.trace import Trace

if TYPE_CHECKING:
    from vae_train.data.base import Batch, Images

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

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:
        """Maps `(N, *in_shape)` to `(N, *out_shape)`."""


class Prior(nn.Module, ABC):
    """() -> distribution of one latent.

    Args:
        event_shape: shape of one draw.
        data_shape: (C, H, W) of an image, for priors that hold pseudo-inputs.
    """

    def __init__(self, event_shape: Shape, data_shape: Shape) -> None:
        super().__init__()
        self.event_shape, self.data_shape = tuple(event_shape), tuple(data_shape)

    @abstractmethod
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        """The prior, batch (). `encode` maps images `(N, C, H, W)` to posteriors, for priors made of such."""


class LatentVariableModel(nn.Module, ABC):
    """p(x, z) with an approximate posterior q(z | x)."""

    data_shape: Shape
    levels: int | None

    def initialize(self, images: Images) -> None:
        """Called once per run before the first step, for parameters that start from the training images."""

    @abstractmethod
    def forward(self, batch: Batch, draw: Draw, num_samples: int = 1) -> Trace:
        """One pass of inference; the only entry for training.

        Args:
            batch: images.
            draw: the source of the noise.
            num_samples: K, draws of z per image.
        """

    @abstractmethod
    def sample(self, num: int, draw: Draw, temperature: float = 1.0, y: Tensor | None = None) -> Distribution:
        """p(x | z) for `num` draws of z from the prior: a distribution over images with batch (num,).

        Args:
            num: how many draws.
            draw: the source of the noise.
            temperature: factor on the prior's standard deviation.
            y: conditions, for models that take them.
        """


class SingleLatent(LatentVariableModel):
    """A model with one latent vector, which can be encoded to and decoded from."""

    latent_shape: Shape

    @abstractmethod
    def encode(self, x: Tensor) -> Distribution:
        """The posterior with batch (B,) for images with shape `(B, C, H, W)`."""

    @abstractmethod
    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) with batch (*N,) for latents with shape `(*N, *latent_shape)`."""
