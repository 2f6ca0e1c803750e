"""min rate  subject to  distortion <= target, by a multiplier λ that moves with the constraint      (GECO).

Rezende & Viola, 2018, algorithm 1, with C = distortion - target in nats per image:

    loss = rate + λ C,    C_t = a · C_(t-1) + (1 - a) · C,    λ <- λ · exp(speed · C_t)   after every update
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.util.ranges import Decay, PositiveFloat, PositiveInt


class GECO(Objective):
    """The rate, and the distance of the distortion from a target, weighed by a multiplier that the target moves.

    While images are reconstructed worse than asked for, the multiplier grows; once they are better, the rate has its
    turn. λ is what 1 / beta is elsewhere.

    Args:
        num_samples: draws of z per image that the distortion is averaged over.
        target: the distortion in nats per image; negative ones are usual for densities.
        decay: a, how slowly the mean of the constraint moves.
        speed: how fast λ moves: its logarithm changes by so much per update and nat.
        limit: λ stays between 1 / limit and limit.
    """

    def __init__(
        self, num_samples: PositiveInt, target: float, decay: Decay, speed: PositiveFloat, limit: PositiveFloat
    ) -> None:
        super().__init__(num_samples)
        if limit < 1:
            raise ValueError(f"limit={limit:g} leaves no multiplier between 1 / limit and limit: give 1 or more")
        self.target, self.decay, self.speed, self.bound = target, decay, speed, math.log(limit)
        self.log_multiplier: Tensor
        self.constraint: Tensor
        self.updates: Tensor
        self.register_buffer("log_multiplier", torch.zeros(()))
        self.register_buffer("constraint", torch.zeros(()))
        self.register_buffer("updates", torch.zeros(()))

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        rate = trace.rate()
        multiplier = self.log_multiplier.exp().to(rate.dtype)
        loss = (rate + multiplier * (trace.distortion() - self.target)).mean()
        return {"loss": loss, "multiplier": multiplier, "beta": 1 / multiplier}

    def update_state(self, scalars: dict[str, Tensor]) -> None:
        """Moves the multiplier, see `Objective.update_state`."""
        violation = scalars["distortion"] - self.target
        decay = self.decay * self.updates.clamp(max=1.0)  # the first one is the mean
        self.constraint.copy_(decay * self.constraint + (1 - decay) * violation)
        self.updates.add_(1.0)
        self.log_multiplier.add_(self.speed * self.constraint).clamp_(-self.bound, self.bound)
