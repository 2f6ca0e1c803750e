"""-E[log 1/K sum_k p(x, z_k) / q(z_k | x)],  z_1 … z_K ~ q(z | x)      (Burda et al., 2016, eq. 8)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import ImportanceWeighted
from vae_train.objective.bounds import Gradient, doubly_reparameterised, log_mean_exp
from vae_train.util.ranges import PositiveInt


class IWAE(ImportanceWeighted):
    """The negative importance-weighted bound. It rises with K, from the ELBO at K = 1 to log p(x).

    Where pixels are missing only the observed ones count, which makes it the bound of MIWAE as Mattei & Frellsen (2019)
    mean the name.

    Args:
        num_samples: K, draws of z per image.
        gradient: how q(z | x) is trained, see `vae_train.objective.bounds`.
    """

    def __init__(self, num_samples: PositiveInt, gradient: Gradient) -> None:
        super().__init__(num_samples, 1, gradient)

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        log_weight = self.log_weight(trace)  # (K, B)
        terms = {"loss": -log_mean_exp(log_weight, 0).mean()}
        if self.gradient == "dreg":
            terms["encoder_loss"] = -doubly_reparameterised(log_weight, 0).mean()
        return terms
