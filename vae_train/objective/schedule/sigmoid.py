"""Logistic annealing of the weight of the KL term."""

from typing_extensions import override

from vae_train.objective.schedule.base import BetaSchedule
from vae_train.util.numbers import Number, clamp, sigmoid
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat


class SigmoidBeta(BetaSchedule):
    """1 / (1 + exp(-(epoch - middle) / width)), the logistic annealing of Bowman et al. (2016).

    Args:
        steps_per_epoch: see `BetaSchedule`.
        middle: the epoch at which the factor is ½.
        width: epochs in which the odds grow by e.
    """

    def __init__(self, steps_per_epoch: float, middle: NonNegativeFloat, width: PositiveFloat) -> None:
        super().__init__(steps_per_epoch)
        self.middle, self.width = middle, width

    @override
    def at(self, epoch: Number) -> Number:
        # The clamp keeps exp finite in Python's floats; beyond 50 the sigmoid is 0 or 1 in any precision.
        return sigmoid(clamp((epoch - self.middle) / self.width, -50.0, 50.0))
