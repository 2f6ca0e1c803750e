"""Normalizing flows: y = f(z) with z from a simple distribution (Rezende & Mohamed, 2015, eq. 5).

log p(y) = log p(z) - log |det df/dz|
"""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.distributions.flows.base import Flow
from vae_train.rng import Rng


class Transformed(Distribution):
    """The distribution of f(z) for z from another distribution.

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
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            return super().log_prob(x, mask)
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

    @override
    def detach(self) -> Transformed:
        return Transformed(self.base.detach(), self.flow.detach())

    def _through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.flow.forward(z.flatten(-len(self.event_shape)))
        return y.unflatten(-1, self.event_shape), log_det
