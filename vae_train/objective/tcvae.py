"""distortion + alpha · MI + beta · TC + gamma · DWKL, a decomposition of the mean rate      (beta-TCVAE).

Chen et al., 2018, Isolating Sources of Disentanglement in VAEs, arXiv:1802.04942, eq. 2 and 4: with
the aggregate posterior q(z) over the training images,

    E_x[rate] = E[log q(z|x) / q(z)]  +  E[log q(z) / prod_d q(z_d)]  +  E[log prod_d q(z_d) / p(z)]
                mutual information       total correlation               dimension-wise KL
"""

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.aggregate import Estimator, aggregate
from vae_train.objective.base import Context, WeightedRate
from vae_train.objective.schedule import BetaSchedule
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class TCVAE(WeightedRate):
    """The negative ELBO with a weight on each term of the rate.

    The terms are estimated from a batch, see `vae_train.objective.aggregate`. Their logarithms are biased, less so for
    larger batches. Only the rate of the first latent layer is decomposed; other layers add their rate.

    Args:
        num_samples: samples of z per image.
        alpha: weight of the mutual information between images and z.
        beta: weight of the total correlation.
        beta_schedule: a factor on beta as a function of the step.
        gamma: weight of the dimension-wise KL.
        estimator: how log q(z) is estimated.
        num_train: images in the training split.
    """

    needs_single_layer = "the total correlation of z"
    needs_factorized = "to estimate total correlation"
    per_image = False
    gathers = True

    def __init__(
        self,
        num_samples: PositiveInt,
        alpha: NonNegativeFloat,
        beta: NonNegativeFloat,
        beta_schedule: BetaSchedule,
        gamma: NonNegativeFloat,
        estimator: Estimator,
        num_train: int,
    ) -> None:
        super().__init__(num_samples, beta, beta_schedule)
        self.alpha, self.gamma = alpha, gamma
        self.estimator, self.num_train = estimator, num_train

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        first, *others = trace.latents
        joint, marginals = aggregate(first.q, first.z, self.num_train, self.estimator, context.whole)
        log_q = first.q.log_prob(first.z)
        mutual, total = (log_q - joint).mean(), (joint - marginals).mean()
        dimensions = (marginals - first.p.log_prob(first.z)).mean()
        beta = self.beta_at(context.step, total)
        loss = trace.distortion().mean() + self.alpha * mutual + beta * total + self.gamma * dimensions
        loss = sum((latent.rate().mean() for latent in others), loss)
        parts = {"mutual_information": mutual, "total_correlation": total, "dimension_wise_kl": dimensions}
        return {"loss": loss, "beta": beta} | parts
