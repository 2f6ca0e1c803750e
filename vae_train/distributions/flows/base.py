"""Invertible maps y = f(z) of R^D that know log |det df/dz|, and the distributions that they make.

A `Flow` has its parameters: an encoder or a module computed them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Detachable, Distribution, promote
from vae_train.rng import Rng


class Flow(Detachable, ABC):
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


class Chain(Flow):
    """Several flows in sequence.

    Args:
        flows: in the order in which they are applied.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        self.flows = list(flows)

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return _composed([flow.forward for flow in self.flows], z)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _composed([flow.inverse for flow in reversed(self.flows)], y)


def _composed(maps: Sequence[Callable[[Tensor], tuple[Tensor, Tensor]]], z: Tensor) -> tuple[Tensor, Tensor]:
    """The maps in sequence, and the sum of their log-determinants."""
    z, total = maps[0](z)
    for function in maps[1:]:
        z, log_det = function(z)
        total = total + log_det
    return z, total


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


class Transformed(Distribution):
    """The distribution of y = f(z) for z from another distribution: log p(y) = log p(z) - log |det df/dz|.

    Rezende & Mohamed, 2015, Variational Inference with Normalizing Flows, arXiv:1505.05770, eq. 5.
    Sampling takes one pass through f, which also gives the log-density of the samples (`rsample_and_log_prob`). The
    log-density of other values takes the inverse of f, which not every flow has. Events with several dimensions are
    flattened before they pass through f.

    Args:
        base: the distribution of z, which decides batch and event.
        flow: f, on the flattened event.
    """

    def __init__(self, base: Distribution, flow: Flow) -> None:
        self.base, self.flow = base, flow
        super().__init__(base.batch_shape + base.event_shape, len(base.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        return self._through(self.base.mean)[0]

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        event_ndim = len(self.event_shape)
        z, log_det = self.flow.inverse(promote(x).flatten(-event_ndim))
        return self.base.log_prob(z.unflatten(-1, self.event_shape)) + log_det

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self._through(self.base.sample(rng, num, temperature))[0]

    @override
    def rsample_and_log_prob(self, rng: Rng, num: int) -> tuple[Tensor, Tensor]:
        z = self.base.sample(rng, num)
        y, log_det = self._through(z)
        return y, self.base.log_prob(z) - log_det

    def _through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.flow.forward(z.flatten(-len(self.event_shape)))
        return y.unflatten(-1, self.event_shape), log_det
