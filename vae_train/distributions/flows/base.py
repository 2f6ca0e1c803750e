"""Invertible maps y = f(z) of R^D that know log |det df/dz|.

A `Flow` has its parameters: an encoder or a module computed them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override


class Flow(ABC):
    """An invertible map with all its parameters."""

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """f(z) with shape `(*N, D)`, and log |det df/dz| with shape `(*N)`, in nats.

        Args:
            z: tensor with shape `(*any, D)`, which broadcasts against the parameters' batch to `(*N, D)`.
        """

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """f⁻¹(y) with shape `(*N, D)`, and log |det df⁻¹/dy| with shape `(*N)`, in nats.

        Args:
            y: tensor with shape `(*any, D)`.

        Raises:
            NotImplementedError: there is no formula for the inverse.
        """
        raise NotImplementedError(
            f"a {type(self).__name__} flow has no inverse in closed form: it has a density at its own samples only"
        )

    def detach(self) -> Flow:
        """The same map with a stop-gradient on its parameters; gradients with respect to z remain."""
        detached = copy.copy(self)
        for name, value in vars(self).items():
            setattr(detached, name, _detach(value))
        return detached


def _detach(value: Any) -> Any:
    if isinstance(value, Tensor | Flow):
        return value.detach()
    if isinstance(value, list | tuple):
        return type(value)(map(_detach, value))
    return value


class Chain(Flow):
    """Several flows in sequence.

    Args:
        flows: in the order in which they are applied.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        self.flows = list(flows)

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z, total = self.flows[0].forward(z)
        for flow in self.flows[1:]:
            z, log_det = flow.forward(z)
            total = total + log_det
        return z, total

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        y, total = self.flows[-1].inverse(y)
        for flow in reversed(self.flows[:-1]):
            y, log_det = flow.inverse(y)
            total = total + log_det
        return y, total


class Reversed(Flow):
    """The inverse of another flow.

    Args:
        flow: the other, which has an inverse.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(z)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.forward(y)


class Scale(Flow):
    """y = shift + exp(log_scale) · z, elementwise.

    Args:
        shift: tensor with shape `(*batch, D)`.
        log_scale: tensor with shape `(*batch, D)`.
    """

    def __init__(self, shift: Tensor, log_scale: Tensor) -> None:
        self.shift, self.log_scale = shift, log_scale

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y = self.shift + torch.exp(self.log_scale) * z
        return y, self.log_scale.sum(-1).expand(y.shape[:-1])

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z = (y - self.shift) * torch.exp(-self.log_scale)
        return z, -self.log_scale.sum(-1).expand(z.shape[:-1])
