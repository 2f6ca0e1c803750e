"""-E_q[log p(x | z)] + beta · KL(q(z | x) || p(z))."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.ranges import NonNegativeFloat, PositiveInt
from vae_train.schedules import Number


class ELBO(Objective):
    """The negative ELBO (Kingma & Welling, 2014, eq. 3), with a weight on the KL (Higgins et al., 2017, eq. 4).

    The weight multiplies a KL in nats, summed over the latents, against a distortion in nats, summed over the pixels:
    beta = 1 is the bound itself. (Code that averages over pixels uses beta / D.)

    Args:
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
        num_samples: draws of z per image that the distortion is averaged over.
    """

    def __init__(
        self, beta: NonNegativeFloat, beta_schedule: Callable[[int | Tensor], Number], num_samples: PositiveInt
    ) -> None:
        super().__init__(num_samples)
        self.beta, self.beta_schedule = beta, beta_schedule

    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        distortion, rate = trace.distortion(), trace.rate()  # (B,) each
        weight = self.beta * self.beta_schedule(step)
        # A fill needs no copy from the host, which would wait for the device.
        beta = weight.to(rate.dtype) if isinstance(weight, Tensor) else rate.new_full((), weight)
        return {"loss": (distortion + beta * rate).mean(), "beta": beta}
