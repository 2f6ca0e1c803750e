"""-E[1/M sum_m log 1/K sum_k p(x, z_mk) / q(z_mk | x)]      (MIWAE: Rainforth et al., 2018)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_train.bounds import Gradient, doubly_reparameterised, group_mistake, grouped, log_mean_exp
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective, gradient_refusal
from vae_train.ranges import PositiveInt


class MIWAE(Objective):
    """The mean of M negative importance-weighted bounds, of K draws each.

    One group is IWAE, and groups of one draw each are the ELBO: more groups give the encoder a clearer gradient, larger
    groups a tighter bound.

    Args:
        num_samples: M · K, draws of z per image.
        groups: M.
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
        log_weight = grouped(trace.log_weight(held=self.gradient != "standard"), self.groups)  # (M, K, B)
        terms = {"loss": -log_mean_exp(log_weight, 1).mean()}
        if self.gradient == "dreg":
            terms["encoder_loss"] = -doubly_reparameterised(log_weight, 1).mean()
        return terms
