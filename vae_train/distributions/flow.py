"""Normalizing flows: y = f(z) with z from a simple distribution (Rezende & Mohamed, 2015, eq. 5).

log p(y) = log p(z) - log |det df/dz|
"""

from __future__ import annotations

from torch import Tensor

from vae_train.distributions.base import Distribution, promote
from vae_train.draws import Draw
from vae_train.flows import Flow


class Flowed(Distribution):
    """The distribution of f(z) for z from another distribution.

    Drawing takes one pass through `f` and gives the log-density of the draws with them (`scored`); that of other values
    takes its inverse, which not every flow has. Events with several dimensions are flattened on their way through it.

    Args:
        base: the distribution of z, which decides batch and event.
        flow: f, on the flattened event.
    """

    def __init__(self, base: Distribution, flow: Flow) -> None:
        self.base, self.flow = base, flow
        super().__init__(base.batch_shape + base.event_shape, len(base.event_shape))

    @property
    def mean(self) -> Tensor:
        """f at the mean of z, with shape `(*batch, *event)`: one typical value. The mean itself has no closed form."""
        return self._through(self.base.mean)[0]

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Log-density in nats, see `Distribution.log_prob`; all elements have to be observed.

        Raises:
            NotImplementedError: the flow has no inverse, or elements are left out.
        """
        if observed is not None:
            raise NotImplementedError("the elements depend on each other, so that none can be left out of log_prob")
        event_ndim = len(self.event_shape)
        z, log_det = self.flow.inverse(promote(x).flatten(-event_ndim))
        return self.base.log_prob(z.unflatten(-1, self.event_shape)) + log_det

    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """Draws f(z), z from the base at that temperature, see `Distribution.sample`."""
        return self._through(self.base.sample(draw, num, temperature))[0]

    def scored(self, draw: Draw, num: int) -> tuple[Tensor, Tensor]:
        """See `Distribution.scored`."""
        z = self.base.sample(draw, num)
        y, log_det = self._through(z)
        return y, self.base.log_prob(z) - log_det

    def detach(self) -> Flowed:
        """See `Distribution.detach`; the parameters of the flow's networks are held too."""
        return Flowed(self.base.detach(), self.flow.detach())

    def _through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.flow.forward(z.flatten(-len(self.event_shape)))
        return y.unflatten(-1, self.event_shape), log_det
