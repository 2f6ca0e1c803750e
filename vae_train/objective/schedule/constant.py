"""A constant weight of the KL term."""

from typing_extensions import override

from vae_train.objective.schedule.base import BetaSchedule
from vae_train.util.numbers import Number


class ConstantBeta(BetaSchedule):
    """1 from the first step on."""

    @override
    def at(self, epoch: Number) -> Number:
        return 1.0
