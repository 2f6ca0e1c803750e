"""Families: what turns a network's output into a distribution. Posteriors and likelihoods are families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from vae_train.distributions.base import Distribution

Shape = tuple[int, ...]

CAPABILITIES = frozenset({"compile", "vmap", "float64", "bf16"})
"""What a component states that it can do, all of it unless it says otherwise: be compiled by torch.compile, be stacked
by torch.func.vmap, compute in float64, follow networks under bfloat16 autocast."""


class Family(nn.Module, ABC):
    """Parameters -> distribution.

    Args:
        event_shape: shape of one draw: `(D,)` of a posterior, `(C, H, W)` of a likelihood.
        levels: number of values that a pixel can take (likelihoods of discrete data); None for continuous events.
    """

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    parameter_shape: Shape
    """What the network has to give for one event, for instance (2 D,) for a Gaussian on (D,)."""

    def __init__(self, event_shape: Shape, levels: int | None) -> None:
        super().__init__()
        self.event_shape, self.levels = tuple(event_shape), levels

    @abstractmethod
    def forward(self, parameters: Tensor) -> Distribution:
        """The distribution with batch `(*N,)` for parameters with shape `(*N, *parameter_shape)`."""


Support = Literal["real", "sphere", "categorical", "joint"]
"""Where z lives: R^D, the unit sphere in it, one-hot blocks of categories, or a real and a one-hot part."""


class Posterior(Family):
    """A family on latents. What it says of itself decides what it goes with.

    Args:
        event_shape: shape of z.
        levels: None.
    """

    support: ClassVar[Support] = "real"
    has_density: ClassVar[bool] = True
    """Whether it has a density: without one there is no rate, no bound and no importance weight."""
    is_factorized: ClassVar[bool] = True
    """Whether the elements of z are independent given x, see `Distribution.is_factorized`."""
    has_tractable_density: ClassVar[bool] = True
    """Whether it knows log q(z | x) of every z, and not only of its own draws."""
    supports_stop_gradient: ClassVar[bool] = True
    """Whether `Distribution.detach` holds all that made log q(z | x)."""


class Likelihood(Family):
    """A family on images. What it says of itself stands beside every figure."""

    warning: str | None = None
    """Why its figures are no likelihoods, where they are not."""

    @classmethod
    def couples_batch(cls, **knobs: object) -> bool:
        """Whether in training an image is scored by what others of its batch are like."""
        return knobs.get("scale_mode") == "optimal"

    @classmethod
    def refusal(cls, levels: int | None, **knobs: object) -> str | None:
        """Why this likelihood cannot score data with `levels` levels, and what could; None where it can."""
        return None
