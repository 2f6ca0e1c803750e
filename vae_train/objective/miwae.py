"""-E[1/M sum_m log 1/K sum_k p(x, z_mk) / q(z_mk | x)]      (MIWAE).

Rainforth et al., 2018, Tighter Variational Bounds are Not Necessarily Better, arXiv:1802.04537.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.objective.base import ImportanceWeighted
from vae_train.objective.bounds import doubly_reparameterised, grouped, log_mean_exp
from vae_train.rng import Rng


class MIWAE(ImportanceWeighted):
    """The mean of M negative importance-weighted bounds, of K samples each.

    One group is IWAE, and groups of one sample each are the ELBO: more groups give the encoder a clearer gradient,
    larger groups a tighter bound.

    Args:
        num_samples: M · K, samples of z per image.
        groups: M.
        gradient: how q(z | x) is trained, see `vae_train.objective.bounds`.

    Raises:
        ValueError: the samples do not form groups of equal size.
    """

    @override
    def scalars(self, model: LatentVariableModel, trace: Trace, step: int | Tensor, rng: Rng) -> dict[str, Tensor]:
        log_weight = grouped(self.log_weight(trace), self.groups)  # (M, K, B)
        terms = {"loss": -log_mean_exp(log_weight, 1).mean()}
        if self.gradient == "dreg":
            terms["encoder_loss"] = -doubly_reparameterised(log_weight, 1).mean()
        return terms
