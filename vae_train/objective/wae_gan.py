"""distortion + weight · E_q(z)[softplus(-logit(z))], with a critic that separates q(z) from p(z)      (WAE-GAN, AAE).

Tolstikhin et al., 2018, Wasserstein Auto-Encoders, arXiv:1711.01558, algorithm 1; Makhzani et al., 2016, Adversarial
Autoencoders, arXiv:1511.05644. The critic minimises

    E_p(z)[softplus(-logit(z))] + E_q(z)[softplus(logit(z))]
"""

import math

from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context, Objective, sample_prior
from vae_train.objective.critics import VectorCritic
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class WAEGAN(Objective):
    """An adversarial autoencoder: the encoder learns latents that a critic cannot tell from samples of the prior.

    Args:
        num_samples: samples of z per image.
        weight: λ, weight of the adversarial loss.
        hidden: sizes of the critic's hidden layers.
        critic_lr: the critic's learning rate; None for that of the model.
        latent_shape: shape of z.
    """

    codes_error = "matches the distribution of z to the prior, but the choice of codes has no gradient"
    needs_single_layer = "the distance of q(z) from p(z)"
    needs_density = False
    per_image = False
    gathers = True
    is_adaptive = True

    def __init__(
        self,
        num_samples: PositiveInt,
        weight: NonNegativeFloat,
        hidden: list[PositiveInt],
        critic_lr: PositiveFloat | None,
        latent_shape: list[PositiveInt],
    ) -> None:
        super().__init__(num_samples)
        self.weight, self.critic_lr = weight, critic_lr
        self.critic = VectorCritic(math.prod(latent_shape), hidden)

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        z = trace.latents[0].z.flatten(2)
        prior_z = sample_prior(trace, context.rng).flatten(1).detach()
        adversarial = F.softplus(-self.critic(z)).mean()
        # Each loss only trains its own parameters: those of the critic, or those of the model.
        critic_loss = F.softplus(-self.critic(prior_z)).mean() + F.softplus(self.critic(z.detach())).mean()
        loss = trace.distortion().mean() + self.weight * adversarial
        return {"loss": loss, "critic_loss": critic_loss, "adversarial": adversarial}
