"""L_(M·K) for the decoder, and 1/M sum_m L_K^(m) for the encoder      (PIWAE).

Rainforth et al., 2018, Tighter Variational Bounds are Not Necessarily Better, arXiv:1802.04537.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context
from vae_train.objective.bounds import ImportanceWeighted, doubly_reparameterized, log_mean_exp


class PIWAE(ImportanceWeighted):
    """IWAE of all samples for decoder and prior, and MIWAE of the same samples for q(z | x).

    The reported loss is the IWAE bound.

    Args:
        num_samples: M · K, samples of z per image.
        groups: M, number of groups in the encoder's bound.
        gradient: gradient estimator for q(z | x), see `vae_train.objective.bounds`.

    Raises:
        ValueError: the samples do not form groups of equal size.
    """

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        log_weight = self.log_weight(trace)  # (M · K, B)
        within = doubly_reparameterized if self.gradient == "dreg" else log_mean_exp
        encoder_loss = -within(log_weight.unflatten(0, (self.groups, -1)), 1).mean()
        return {"loss": -log_mean_exp(log_weight, 0).mean(), "encoder_loss": encoder_loss}
