"""What a runner is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vae_train.training.execution.feed import Feed
from vae_train.training.step import Scalars, StepInputs
from vae_train.util.text import first_line

log = logging.getLogger("vae_train")

Mode = Literal["auto", "eager", "compile", "graph"]


class Rows(NamedTuple):
    """The scalars of consecutive steps."""

    names: list[str]
    values: Tensor
    """(steps, F) on the device, which is not waited for."""


class Runner(ABC):
    """Takes steps: calls a step function with the inputs of a feed.

    Args:
        step: takes one step.
        feed: where the inputs come from.
        gradient_norm: the L2 norm of the gradient of the last step, with shape `()`.
    """

    mode: Mode

    def __init__(self, step: Callable[[StepInputs], Scalars], feed: Feed, gradient_norm: Callable[[], Tensor]) -> None:
        self.step, self.feed, self.norm = step, feed, gradient_norm

    @abstractmethod
    def __call__(self, step: int, limit: int) -> Rows:
        """Takes as many steps as are executed at once, at least one.

        Args:
            step: number of updates so far.
            limit: largest number of steps.

        Returns:
            The scalars of every step, computed before its update.
        """

    def gradient_norm(self) -> float:
        """The L2 norm of the last step's gradient, before it was clipped. Waits for the device."""
        return float(self.norm())

    def fall_back(self, mode: Mode, error: Exception) -> None:
        """Reports that this mode is not supported and that steps are executed in another one from here on."""
        reason = first_line(error)
        log.warning("execution=%s is not supported here; falling back to %s: %s", self.mode, mode, reason)
        log.debug("%s", reason, exc_info=error)
        self.mode = mode


def stacked(scalars: Scalars) -> Rows:
    """The scalars of one step."""
    return Rows(list(scalars), torch.stack(list(scalars.values()))[None])
