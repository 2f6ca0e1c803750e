"""-(share · ELBO + (1 - share) · L_K)      (CIWAE).

Rainforth et al., 2018, Tighter Variational Bounds are Not Necessarily Better, arXiv:1802.04537; their beta is the
share.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context
from vae_train.objective.bounds import Gradient, ImportanceWeighted, doubly_reparameterized, log_mean_exp
from vae_train.util.ranges import Fraction, PositiveInt


class CIWAE(ImportanceWeighted):
    """The negative weighted mean of the ELBO and the importance-weighted bound, from the same samples.

    Args:
        num_samples: K, samples of z per image.
        elbo_share: weight of the ELBO: 1 is the ELBO (with the KL estimated from samples), 0 the importance-weighted
            bound.
        gradient: gradient estimator for q(z | x), see `vae_train.objective.bounds`. The ELBO's part is the mean of K
            bounds of one sample each, for which "stl" and "dreg" are the same.
    """

    def __init__(self, num_samples: PositiveInt, elbo_share: Fraction, gradient: Gradient) -> None:
        super().__init__(num_samples, 1, gradient)
        self.elbo_share = elbo_share

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        log_weight = self.log_weight(trace)  # (K, B)
        terms = {"loss": -self._mixed(log_weight.mean(0), log_mean_exp(log_weight, 0))}
        if self.gradient == "dreg":
            terms["encoder_loss"] = -self._mixed(log_weight.mean(0), doubly_reparameterized(log_weight, 0))
        return terms

    def _mixed(self, elbo: Tensor, bound: Tensor) -> Tensor:
        return (self.elbo_share * elbo + (1 - self.elbo_share) * bound).mean()
