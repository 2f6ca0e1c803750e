"""Cyclical annealing of the weight of the KL term."""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.objective.schedule.base import BetaSchedule
from vae_train.util.numbers import Number, clamp
from vae_train.util.ranges import Decay, PositiveFloat, PositiveInt


class CyclicalBeta(BetaSchedule):
    """`cycles` sawtooth cycles within `period · cycles` epochs, then 1 (Fu et al., 2019, arXiv:1903.10145).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        period: epochs of one cycle.
        cycles: number of cycles.
        ramp: the share of a cycle in which the factor rises from 0 to 1; in the rest it stays 1.
    """

    def __init__(self, steps_per_epoch: float, period: PositiveFloat, cycles: PositiveInt, ramp: Decay) -> None:
        super().__init__(steps_per_epoch)
        self.period, self.cycles, self.ramp = period, cycles, ramp

    @override
    def at(self, epoch: Number) -> Number:
        rising = clamp((epoch / self.period) % 1.0 / self.ramp)
        over = epoch >= self.period * self.cycles
        return torch.where(over, 1.0, rising) if isinstance(over, Tensor) else (1.0 if over else rising)
