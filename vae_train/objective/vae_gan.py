"""distortion + beta · rate + w · adversarial(mean(x | z)), with a critic of patches      (VAE-GAN).

Larsen et al., 2016, Autoencoding beyond pixels using a learned similarity metric, arXiv:1512.09300; in the form of
Esser et al., 2021, Taming Transformers, arXiv:2012.09841, eq. 5 to 7, whose weight balances both at the decoder's
output h:

    w = weight · |d distortion / dh| / |d adversarial / dh|

The losses are in `vae_train.objective.adversarial`.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import WholeBatch
from vae_train.model.trace import Trace
from vae_train.model.traits import CAPABILITIES
from vae_train.objective.adversarial import Kind, adversarial_loss, critic_loss, gradient_ratio, observed
from vae_train.objective.base import Context, WeightedRate, scalar_like
from vae_train.objective.critics import PatchCritic
from vae_train.objective.schedule import BetaSchedule
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class VAEGAN(WeightedRate):
    """The negative ELBO with an adversarial loss on the likelihood's mean.

    Larsen et al. replace the pixel likelihood by features of the critic; here it is kept.

    Args:
        num_samples: samples of z per image.
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
        weight: weight of the adversarial loss.
        adaptive: scale this weight by the ratio of the gradients of distortion and adversarial loss at the decoder's
            output. Evaluation uses the ratio of the last update.
        kind: the losses, see `vae_train.objective.adversarial`.
        r1: weight of the penalty on the critic's gradient at real images; 0 for none.
        start: epoch at which the critic starts.
        channels: channels of the critic's first scale.
        critic_lr: the critic's learning rate; None for that of the model.
        data_shape: (C, H, W) of an image.
        steps_per_epoch: optimiser steps in an epoch.
    """

    capabilities = CAPABILITIES - {"compile", "vmap"}  # gradients within the loss
    per_image = False
    gathers = True
    is_adaptive = True

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        beta_schedule: BetaSchedule,
        weight: NonNegativeFloat,
        adaptive: bool,
        kind: Kind,
        r1: NonNegativeFloat,
        start: NonNegativeFloat,
        channels: PositiveInt,
        critic_lr: PositiveFloat | None,
        data_shape: tuple[int, ...],
        steps_per_epoch: float,
    ) -> None:
        super().__init__(num_samples, beta, beta_schedule)
        self.weight, self.adaptive, self.kind, self.r1, self.critic_lr = weight, adaptive, kind, r1, critic_lr
        self.first_step = start * steps_per_epoch
        self.settled_step = max(self.settled_step, self.first_step)
        self.critic = PatchCritic(data_shape, channels)
        self.balance = nn.Buffer(torch.ones(()))

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        distortion, rate = trace.distortion().mean(), trace.rate().mean()
        beta = self.beta_at(context.step, rate)
        active = scalar_like(1.0 * (context.step >= self.first_step), rate)
        real, fake = observed(trace, trace.x), observed(trace, trace.px.mean).flatten(0, 1)
        adversarial = adversarial_loss(self.critic(fake), self.kind)
        balance = self._balance(distortion, adversarial, trace.px.parameters, context.whole)
        loss = distortion + beta * rate + active * self.weight * balance * adversarial
        # Each loss only trains its own parameters: those of the critic, or those of the model.
        loss_of_critic = active * critic_loss(self.critic, real.detach(), fake.detach(), self.kind, self.r1)
        logged = {"beta": beta, "adversarial": adversarial, "balance": balance}
        return {"loss": loss, "critic_loss": loss_of_critic} | logged

    @override
    def statistics(self, trace: Trace, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"balance": scalars["balance"]}

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        self.balance.copy_(statistics["balance"])

    def _balance(self, distortion: Tensor, adversarial: Tensor, decoded: Tensor | None, whole: WholeBatch) -> Tensor:
        if not self.adaptive:
            return torch.ones_like(distortion)
        if not torch.is_grad_enabled():
            return self.balance.to(distortion.dtype, copy=True)
        assert decoded is not None, "p(x | z) has no decoder output"
        return gradient_ratio(distortion, adversarial, decoded, whole)
