"""distortion + beta · rate + gamma · TC, with the total correlation from a critic      (FactorVAE).

Kim & Mnih, 2018, Disentangling by Factorising, arXiv:1802.05983, eq. 2 and 3: a critic D separates samples of q(z) from
samples of prod_d q(z_d), so that

    TC = KL(q(z) || prod_d q(z_d)) ~ E_q(z)[log D(z) / (1 - D(z))] = E_q(z)[logit(z)]
"""

import math

from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context, WeightedRate
from vae_train.objective.critics import VectorCritic, permute_dims
from vae_train.objective.schedule import BetaSchedule
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class FactorVAE(WeightedRate):
    """The negative ELBO with a penalty on the total correlation, which a critic estimates.

    The paper permutes the dimensions of a second batch. Here `critics.permute_dims` permutes those of the same batch.
    The critic only sees the first latent layer.

    Args:
        num_samples: samples of z per image.
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
        gamma: weight of the total correlation.
        hidden: sizes of the critic's hidden layers.
        critic_lr: the critic's learning rate; None for that of the model.
        latent_shape: shape of z.
    """

    codes_error = "permutes the dimensions of z, but the result does not consist of codes"
    needs_single_layer = "the total correlation of z"
    per_image = False
    gathers = True
    is_adaptive = True

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        beta_schedule: BetaSchedule,
        gamma: NonNegativeFloat,
        hidden: list[PositiveInt],
        critic_lr: PositiveFloat | None,
        latent_shape: list[PositiveInt],
    ) -> None:
        super().__init__(num_samples, beta, beta_schedule)
        self.gamma, self.critic_lr = gamma, critic_lr
        self.critic = VectorCritic(math.prod(latent_shape), hidden)

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        distortion, rate = trace.distortion(), trace.rate()
        beta = self.beta_at(context.step, rate)
        z = trace.latents[0].z.flatten(2)
        total = self.critic(z).mean().to(rate.dtype)
        detached = z.detach()
        # Each loss only trains its own parameters: those of the critic, or those of the model.
        permuted = context.whole.own(permute_dims(context.whole.gather(detached, 1)), 1)
        joint, product = self.critic(detached), self.critic(permuted)
        critic_loss = 0.5 * (F.softplus(-joint) + F.softplus(product)).mean()
        loss = (distortion + beta * rate).mean() + self.gamma * total
        return {"loss": loss, "critic_loss": critic_loss, "beta": beta, "total_correlation": total}
