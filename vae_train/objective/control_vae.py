"""distortion + beta(t) · rate, where a controller adjusts beta so that the rate reaches a target      (ControlVAE).

Shao et al., 2020, ControlVAE: Controllable Variational Autoencoder, arXiv:2004.05988, eq. 6 to 8, with e = target -
rate in nats and an integral S that is clamped to the range of beta:

    beta = beta_min + proportional / (1 + exp(e)) + S,      S <- S - integral · e
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context, Objective
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class ControlVAE(Objective):
    """The ELBO with a weight on the rate that a PI controller adjusts.

    The paper stops the integral while beta is out of bounds. Here the integral is clamped, which also prevents
    wind-up and cannot get stuck.

    Args:
        num_samples: samples of z per image.
        target: the target of the rate in nats.
        proportional: gain of the error.
        integral: gain of the sum of errors, per update.
        beta_min: lower bound and initial value of beta.
        beta_max: upper bound of beta.

    Raises:
        ValueError: beta_max is not above beta_min.
    """

    codes_error = "moves the rate to a target, but the rate of a point mass on codes has no gradient"
    is_adaptive = True

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
        self.summed = nn.Buffer(torch.zeros(()))
        self.beta = nn.Buffer(torch.tensor(float(beta_min)))

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        rate = trace.rate()
        beta = self.beta.to(rate.dtype, copy=True)  # the buffer changes before this is logged
        return {"loss": (trace.distortion() + beta * rate).mean(), "beta": beta}

    @override
    def statistics(self, trace: Trace, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"rate": trace.rate().mean()}

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        error = self.target - statistics["rate"]
        self.summed.sub_(self.integral * error).clamp_(0.0, self.beta_max - self.beta_min)
        moved = self.beta_min + self.proportional * torch.sigmoid(-error) + self.summed
        self.beta.copy_(moved.clamp(max=self.beta_max))
