"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vae_train.model.trace import Trace
from vae_train.ranges import PositiveInt


class Objective(nn.Module, ABC):
    """Trace -> scalars.

    Args:
        num_samples: K, draws of z per image that it asks the model for.
    """

    def __init__(self, num_samples: PositiveInt) -> None:
        super().__init__()
        self.num_samples = num_samples

    @abstractmethod
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        """The scalars of one batch, means over its images.

        Args:
            trace: what inference left behind.
            step: number of the update, for schedules.

        Returns:
            "loss", which is minimised, and whatever else is worth logging: tensors with shape `()`, never floats.
        """
