"""A warm-up of the weight of the KL term along half a cosine."""

import math

from typing_extensions import override

from vae_train.objective.schedule.base import RisingBeta
from vae_train.util.numbers import Number, cos


class CosineBeta(RisingBeta):
    """Half a cosine from `start` to 1, then 1: slow at both ends.

    Args:
        steps_per_epoch: see `BetaSchedule`.
        warmup: see `RisingBeta`.
        start: see `RisingBeta`.
    """

    @override
    def risen(self, progress: Number) -> Number:
        return 0.5 * (1 - cos(math.pi * progress))
