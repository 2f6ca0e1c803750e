"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from vae_train.model.base import Prior
from vae_train.model.family import SUPPORTS, Likelihood, Posterior
from vae_train.model.trace import Trace
from vae_train.ranges import PositiveInt


class Objective(nn.Module, ABC):
    """Trace -> scalars.

    Args:
        num_samples: K, draws of z per image that it asks the model for.
    """

    supports: ClassVar[frozenset[str]] = SUPPORTS
    needs_density: ClassVar[bool] = True
    """Whether it uses log q(z | x) or the rate, which a point mass has not."""
    per_image: ClassVar[bool] = True
    """Whether the loss is a mean over images. Otherwise it compares the images of a batch, which cannot be cut."""
    critic_lr: float | None = None
    """Learning rate of its own parameters, where it is not that of the model."""

    def __init__(self, num_samples: PositiveInt) -> None:
        super().__init__()
        self.num_samples = num_samples

    @classmethod
    def refusal(
        cls, posterior: type[Posterior], prior: type[Prior], likelihood: type[Likelihood], **knobs: Any
    ) -> str | None:
        """Why this objective makes no sense for such a model, and what would; None where it does.

        Args:
            posterior: the class of q(z | x).
            prior: the class of p(z).
            likelihood: the class of p(x | z).
            knobs: its own settings.
        """
        if cls.needs_density and not posterior.dense:
            return (
                "needs the density q(z | x), and the posterior is a point mass: there is no KL and no bound. "
                "Use objective=rae or objective=wae_mmd, or model/posterior=gaussian"
            )
        return None

    def react(self, scalars: dict[str, Tensor]) -> None:
        """Moves a state of its own, in place, after an update; evaluation never calls it.

        Args:
            scalars: what `forward` and every run report, over the whole batch, detached.
        """

    @abstractmethod
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        """The scalars of one batch, means over its images.

        Args:
            trace: what inference left behind.
            step: number of the update, for schedules.

        Returns:
            "loss", which is minimised, and whatever else is worth logging: tensors with shape `()`, never floats. An
            objective with parameters of its own (a critic) also returns "critic_loss", which these minimise while the
            model minimises "loss"; one that gives q(z | x) another gradient also "encoder_loss", which the parameters
            of q minimise while the others minimise "loss".
        """
