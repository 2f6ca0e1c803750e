"""distortion + alpha · MI + beta · TC + gamma · DWKL, the parts of the mean rate      (beta-TCVAE).

Chen et al., 2018, eq. 2 and 4: with the aggregate posterior q(z) over the training images,

    E_x[rate] = E[log q(z|x) / q(z)]  +  E[log q(z) / prod_d q(z_d)]  +  E[log prod_d q(z_d) / p(z)]
                mutual information       total correlation               dimension-wise KL
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.aggregate import Estimator, aggregate
from vae_train.objective.base import Objective, factorized_refusal, filled
from vae_train.util.numbers import Number
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class TCVAE(Objective):
    """The negative ELBO with a weight on each part of the rate; all at 1 are the bound, estimated from the draws.

    The parts are estimated from a batch, see `vae_train.objective.aggregate`: their logarithms are biased, the less
    the larger the batch is. The rate's parts are those of the first latent layer; others keep their rate.

    Args:
        num_samples: draws of z per image.
        alpha: weight of the mutual information between images and z.
        beta: weight of the total correlation.
        beta_schedule: a factor on beta as a function of the step.
        gamma: weight of the dimension-wise KL.
        estimator: how log q(z) is estimated.
        num_train: images in the training split.
    """

    per_image = False

    def __init__(
        self,
        num_samples: PositiveInt,
        alpha: NonNegativeFloat,
        beta: NonNegativeFloat,
        beta_schedule: Callable[[int | Tensor], Number],
        gamma: NonNegativeFloat,
        estimator: Estimator,
        num_train: int,
    ) -> None:
        super().__init__(num_samples)
        self.alpha, self.beta, self.beta_schedule, self.gamma = alpha, beta, beta_schedule, gamma
        self.estimator, self.num_train = estimator, num_train

    @classmethod
    @override
    def refusal(cls, posterior: Any, prior: Any, likelihood: Any, **knobs: Any) -> str | None:
        return super().refusal(posterior, prior, likelihood, **knobs) or factorized_refusal(
            posterior, "compares q(z) with the product of its marginals, of which every image has to give its part"
        )

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        first, *others = trace.latents
        joint, marginals = aggregate(first.q, first.z, self.num_train, self.estimator)
        log_q = first.q.log_prob(first.z)
        mutual, total = (log_q - joint).mean(), (joint - marginals).mean()
        dimensions = (marginals - first.p.log_prob(first.z)).mean()
        beta = filled(self.beta * self.beta_schedule(step), total)
        loss = trace.distortion().mean() + self.alpha * mutual + beta * total + self.gamma * dimensions
        for latent in others:
            loss = loss + latent.rate().mean()
        parts = {"mutual_information": mutual, "total_correlation": total, "dimension_wise_kl": dimensions}
        return {"loss": loss, "beta": beta} | parts
