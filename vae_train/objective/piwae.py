"""The decoder follows L_(M·K), the encoder 1/M sum_m L_K^(m)      (PIWAE: Rainforth et al., 2018)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import ImportanceWeighted
from vae_train.objective.bounds import doubly_reparameterised, grouped, log_mean_exp


class PIWAE(ImportanceWeighted):
    """IWAE of all draws for the generative side, MIWAE of the same draws for q(z | x): "partially" importance weighted.

    What is reported as the loss is the IWAE bound.

    Args:
        num_samples: M · K, draws of z per image.
        groups: M, groups that the encoder's bound is the mean of.
        gradient: how q(z | x) is trained, see `vae_train.objective.bounds`.

    Raises:
        ValueError: the draws make no groups of one size.
    """

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        log_weight = self.log_weight(trace)  # (M · K, B)
        within = doubly_reparameterised if self.gradient == "dreg" else log_mean_exp
        encoder_loss = -within(grouped(log_weight, self.groups), 1).mean()
        return {"loss": -log_mean_exp(log_weight, 0).mean(), "encoder_loss": encoder_loss}
