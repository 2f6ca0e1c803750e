"""distortion + beta(t) · rate, where a controller moves beta so that the rate becomes a target      (ControlVAE).

Shao et al., 2020, eq. 6 - 8, with e = target - rate in nats and S an integral that is held within its bounds:

    beta = beta_min + proportional / (1 + exp(e)) + S,      S <- S - integral · e
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class ControlVAE(Objective):
    """The ELBO with a weight on the rate that a PI controller finds.

    The paper stops its integral while beta is out of bounds. Here the integral itself is kept within them, which does
    the same against wind-up and cannot get stuck.

    Args:
        num_samples: draws of z per image that the distortion is averaged over.
        target: the rate in nats.
        proportional: gain of the error itself.
        integral: gain of the sum of errors, per update.
        beta_min: the least beta, which it starts from.
        beta_max: the largest.

    Raises:
        ValueError: beta_max is not above beta_min.
    """

    def __init__(
        self,
        num_samples: PositiveInt,
        target: NonNegativeFloat,
        proportional: NonNegativeFloat,
        integral: PositiveFloat,
        beta_min: NonNegativeFloat,
        beta_max: PositiveFloat,
    ) -> None:
        super().__init__(num_samples)
        if beta_max <= beta_min:
            raise ValueError(f"beta_max={beta_max:g} must be above beta_min={beta_min:g}")
        self.target, self.proportional, self.integral = target, proportional, integral
        self.beta_min, self.beta_max = beta_min, beta_max
        self.summed: Tensor
        self.beta: Tensor
        self.register_buffer("summed", torch.zeros(()))
        self.register_buffer("beta", torch.tensor(float(beta_min)))

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        rate = trace.rate()
        beta = self.beta.to(rate.dtype, copy=True)  # the buffer moves before anybody reads this
        return {"loss": (trace.distortion() + beta * rate).mean(), "beta": beta}

    def update_state(self, scalars: dict[str, Tensor]) -> None:
        """Moves beta, see `Objective.update_state`."""
        error = self.target - scalars["rate"]
        self.summed.sub_(self.integral * error).clamp_(0.0, self.beta_max - self.beta_min)
        moved = self.beta_min + self.proportional * torch.sigmoid(-error) + self.summed
        self.beta.copy_(moved.clamp(max=self.beta_max))
