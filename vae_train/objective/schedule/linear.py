"""A linear warm-up of the weight of the KL term."""

from typing_extensions import override

from vae_train.objective.schedule.base import RisingBeta
from vae_train.util.numbers import Number


class LinearBeta(RisingBeta):
    """From `start` to 1 in a straight line, then 1 (Bowman et al., 2016; Sønderby et al., 2016).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        warmup: see `RisingBeta`.
        start: see `RisingBeta`.
    """

    @override
    def risen(self, progress: Number) -> Number:
        return progress
