"""Families convert a network's output to a distribution. Posteriors and likelihoods are families."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from vae_train.batch import Batch, Images, Shape
from vae_train.distributions.base import Distribution
from vae_train.model.base import Network
from vae_train.model.blocks.layers import by_rows
from vae_train.model.trace import Latent, Trace
from vae_train.model.traits import CAPABILITIES, Support
from vae_train.util.errors import Incompatible, IncompatibleError


class Family(nn.Module, ABC):
    """Maps parameters to a distribution.

    Args:
        event_shape: shape of one sample: the shape of z for a posterior, (C, H, W) for a likelihood.
    """

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    parameter_shape: Shape
    """Shape of the network's output for one event, (2 D,) for a Gaussian on (D,); the event's by default."""

    def __init__(self, event_shape: Shape) -> None:
        super().__init__()
        self.event_shape = self.parameter_shape = tuple(event_shape)
        self.size = math.prod(event_shape)

    def update_state(self, statistics: dict[str, Tensor]) -> None:
        """Updates running averages in place, once per step. Does nothing without a state.

        Args:
            statistics: the result of `statistics`, averaged over the whole batch.
        """

    @abstractmethod
    def forward(self, parameters: Tensor) -> Distribution:
        """The distribution with batch `(*N,)` for parameters with shape `(*N, *parameter_shape)`."""


class Posterior(Family):
    """A family of distributions of z. The class attributes are described in `LayerTraits`.

    Args:
        event_shape: shape of z.
    """

    support: ClassVar[Support] = "real"
    has_density: ClassVar[bool] = True
    has_tractable_density: ClassVar[bool] = True
    is_factorized: ClassVar[bool] = True
    supports_stop_gradient: ClassVar[bool] = True
    is_quantized: ClassVar[bool] = False
    needs_vector: ClassVar[bool] = False
    """Whether z must have a single dimension."""
    max_map_size: ClassVar[int | None] = None
    """Largest number of elements of a map (C, H, W) that it takes as one vector; None for no limit."""

    def initialize(self, images: Images, encode: Callable[[Batch], Tensor]) -> None:
        """Initialises parameters from the training images; called once per run, before the first step.

        Args:
            images: the training images.
            encode: maps images to the parameters of their posteriors.
        """

    def auxiliary(self, q: Any) -> Tensor | None:
        """An additional loss of every image, such as a commitment loss, with shape `(B,)`; None if there is none.

        Args:
            q: the result of `forward`.
        """
        return None

    def statistics(self, latent: Latent) -> dict[str, Tensor]:
        """Detached means over the batch for `update_state`; empty if the posterior has no state."""
        return {}

    def epoch_metrics(self) -> dict[str, float]:
        """See `LatentVariableModel.epoch_metrics`."""
        return {}


class Likelihood(Family):
    """A family of distributions of images.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        settings: other arguments of the constructor that `check_compatible` needs.

    Raises:
        IncompatibleError: the likelihood cannot score data with these levels.
    """

    is_bounded: ClassVar[bool] = False
    """Whether it can only score values in [0, 1]."""
    supports_mask: ClassVar[bool] = True
    """Whether it can leave out single values."""
    warning: str | None = None
    """Why its log-probabilities are not log-likelihoods; None if they are."""

    def __init__(self, event_shape: Shape, levels: int | None, **settings: Any) -> None:
        super().__init__(event_shape)
        self.levels = levels
        error = self.check_compatible(levels, **settings)
        if error is not None:
            raise IncompatibleError(error)

    @classmethod
    def couples_batch(cls, **settings: Any) -> bool:
        """Whether an image's likelihood depends on the rest of its batch in training.

        Args:
            settings: arguments of the constructor.
        """
        return settings.get("scale_mode") == "optimal"

    @classmethod
    def check_compatible(cls, levels: int | None, **settings: Any) -> Incompatible | None:
        """Why this likelihood cannot score data with `levels` levels; None if it can.

        Args:
            levels: number of values that a pixel can take; None for continuous data.
            settings: arguments of the constructor.
        """
        return None

    def statistics(self, trace: Trace) -> dict[str, Tensor]:
        """Detached means over the batch for `update_state`; empty if the likelihood has no state."""
        return {}

    def decode(self, decoder: Network, h: Tensor) -> Distribution:
        """The distribution with batch `(*N,)` whose parameters are the outputs of a decoder.

        Args:
            decoder: maps `(N, *in_shape)` to `(N, *parameter_shape)`.
            h: inputs of the decoder with shape `(*N, *in_shape)`.
        """
        parameters = by_rows(decoder, h, len(decoder.in_shape))
        px: Distribution = self(parameters)
        px.parameters = parameters
        return px
