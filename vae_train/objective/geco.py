"""min rate  subject to  distortion <= target, by a multiplier λ that adapts to the constraint      (GECO).

Rezende & Viola, 2018, Taming VAEs, arXiv:1810.00597, algorithm 1, with C = distortion - target in nats per image:

    loss = rate + λ C,    C_t = a · C_(t-1) + (1 - a) · C,    λ <- λ · exp(speed · C_t)   after every update
"""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context, Objective
from vae_train.util.ranges import Decay, PositiveFloat, PositiveInt


class GECO(Objective):
    """Minimises the rate subject to a target for the distortion, with a Lagrange multiplier.

    The multiplier λ grows while reconstructions are worse than the target and shrinks while they are better. It plays
    the role of 1 / beta.

    Args:
        num_samples: samples of z per image.
        target: target of the distortion in nats/image; negative values are common for densities.
        decay: a, decay of the running mean of the constraint.
        speed: change of log λ per update and nat of the constraint.
        limit: λ stays between 1 / limit and limit.
    """

    codes_error = "weighs the rate against the distortion, but the rate of a point mass on codes has no gradient"
    is_adaptive = True

    def __init__(
        self, num_samples: PositiveInt, target: float, decay: Decay, speed: PositiveFloat, limit: PositiveFloat
    ) -> None:
        super().__init__(num_samples)
        if limit < 1:
            raise ValueError(f"limit={limit:g} must be at least 1")
        self.target, self.decay, self.speed, self.bound = target, decay, speed, math.log(limit)
        self.log_multiplier = nn.Buffer(torch.zeros(()))
        self.constraint = nn.Buffer(torch.zeros(()))
        self.updates = nn.Buffer(torch.zeros(()))

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        rate = trace.rate()
        multiplier = self.log_multiplier.exp().to(rate.dtype)
        loss = (rate + multiplier * (trace.distortion() - self.target)).mean()
        return {"loss": loss, "multiplier": multiplier, "beta": 1 / multiplier}

    @override
    def statistics(self, trace: Trace, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"distortion": trace.distortion().mean()}

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        violation = statistics["distortion"] - self.target
        decay = self.decay * self.updates.clamp(max=1.0)  # the first value replaces the mean
        self.constraint.copy_(decay * self.constraint + (1 - decay) * violation)
        self.updates.add_(1.0)
        self.log_multiplier.add_(self.speed * self.constraint).clamp_(-self.bound, self.bound)
