"""What is handed from one part of a step to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from vae_train.rng import Rng

if TYPE_CHECKING:
    from vae_train.batch import Batch

Scalars = dict[str, Tensor]


class Losses(NamedTuple):
    """What the players of a step minimise, see `Objective.forward`."""

    loss: Tensor
    critic: Tensor | None = None
    encoder: Tensor | None = None


Gradients = list[Tensor | None]
"""One for every parameter; None where the loss does not depend on it."""

Differentiated = Callable[["Batch", int | Tensor, Rng, float], tuple[Gradients, Scalars]]


class Calls(NamedTuple):
    """What a step calls: the learner's own functions, or what a compiler made of them."""

    differentiated: Differentiated
    apply: Callable[[], Any]
    """Changes the parameters by their gradients."""


class Last(NamedTuple):
    """What a step leaves behind beside its scalars."""

    gradients: list[Tensor]
    """Of every parameter that has one, after clipping."""
    norm: Tensor | None
    """The gradient's L2 norm before it was clipped; None where nothing clips."""
