"""The decoder follows L_(M·K), the encoder 1/M sum_m L_K^(m)      (PIWAE: Rainforth et al., 2018)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_train.bounds import Gradient, doubly_reparameterised, group_mistake, grouped, log_mean_exp
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective, gradient_refusal
from vae_train.ranges import PositiveInt


class PIWAE(Objective):
    """IWAE of all draws for the generative side, MIWAE of the same draws for q(z | x): "partially" importance weighted.

    What is reported as the loss is the IWAE bound.

    Args:
        num_samples: M · K, draws of z per image.
        groups: M, groups that the encoder's bound is the mean of.
        gradient: how q(z | x) is trained, see `vae_train.bounds`.

    Raises:
        ValueError: the draws make no groups of one size.
    """

    needs_likelihood = True

    def __init__(self, num_samples: PositiveInt, groups: PositiveInt, gradient: Gradient) -> None:
        super().__init__(num_samples)
        wrong = group_mistake(num_samples, groups)
        if wrong:
            raise ValueError(wrong)
        self.groups, self.gradient = groups, gradient

    @classmethod
    def refusal(cls, posterior: Any, prior: Any, likelihood: Any, **knobs: Any) -> str | None:
        """See `Objective.refusal`."""
        return super().refusal(posterior, prior, likelihood, **knobs) or gradient_refusal(posterior, prior, **knobs)

    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        log_weight = trace.log_weight(held=self.gradient != "standard")  # (M · K, B)
        within = doubly_reparameterised if self.gradient == "dreg" else log_mean_exp
        encoder_loss = -within(grouped(log_weight, self.groups), 1).mean()
        return {"loss": -log_mean_exp(log_weight, 0).mean(), "encoder_loss": encoder_loss}
