"""A weight of the KL term with two phases."""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.objective.schedule.base import BetaSchedule
from vae_train.util.numbers import Number
from vae_train.util.ranges import Fraction, NonNegativeFloat


class TwoPhaseBeta(BetaSchedule):
    """`first` until an epoch, 1 from then on: mostly an autoencoder that becomes a VAE.

    Args:
        steps_per_epoch: see `BetaSchedule`.
        until: the epoch at which the second phase begins.
        first: the factor of the first phase.
    """

    def __init__(self, steps_per_epoch: float, until: NonNegativeFloat, first: Fraction) -> None:
        super().__init__(steps_per_epoch)
        self.until, self.first = until, first

    @override
    def at(self, epoch: Number) -> Number:
        active = epoch >= self.until
        if isinstance(active, Tensor):
            return self.first + (1 - self.first) * active.to(torch.get_default_dtype())
        return 1.0 if active else self.first
