"""Families: what turns a network's output into a distribution. Posteriors and likelihoods are families."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vae_train.distributions import Distribution

Shape = tuple[int, ...]


class Family(nn.Module, ABC):
    """Parameters -> distribution.

    Args:
        event_shape: shape of one draw: `(D,)` of a posterior, `(C, H, W)` of a likelihood.
        levels: number of values that a pixel can take (likelihoods of discrete data); None for continuous events.
    """

    parameter_shape: Shape
    """What the network has to give for one event, for instance (2 D,) for a Gaussian on (D,)."""

    def __init__(self, event_shape: Shape, levels: int | None) -> None:
        super().__init__()
        self.event_shape, self.levels = tuple(event_shape), levels

    @abstractmethod
    def forward(self, parameters: Tensor) -> Distribution:
        """The distribution with batch `(*N,)` for parameters with shape `(*N, *parameter_shape)`."""


class Likelihood(Family):
    """A family on images. What it says of itself stands beside every figure."""

    warning: str | None = None
    """Why its figures are no likelihoods, where they are not."""

    @classmethod
    def refusal(cls, levels: int | None, **knobs: object) -> str | None:
        """Why this likelihood cannot score data with `levels` levels, and what could; None where it can."""
        return None
