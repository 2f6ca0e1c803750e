"""distortion + beta · rate + w · adversarial(mean(x | z)), with a critic of patches      (VAE-GAN).

Larsen et al., 2016, Autoencoding beyond pixels using a learned similarity metric, arXiv:1512.09300; in the form of
Esser et al., 2021, Taming Transformers, arXiv:2012.09841, eq. 5 to 7, whose weight balances both at the decoder's
output h:

    w = weight · |d distortion / dh| / |d adversarial / dh|

    hinge:          critic: ½ E[max(0, 1 - D(x))] + ½ E[max(0, 1 + D(x̂))]           adversarial: -E[D(x̂)]
    nonsaturating:  critic: ½ E[softplus(-D(x))] + ½ E[softplus(D(x̂))]              adversarial: E[softplus(-D(x̂))]
    both with R1:   critic: + r1 / 2 · E |dD(x) / dx|²                               (Mescheder et al., 2018, eq. 9)
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.model.traits import CAPABILITIES
from vae_train.objective.base import Context, WeightedRate, scalar_like
from vae_train.objective.critics import PatchCritic
from vae_train.objective.schedule import BetaSchedule
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt

MAX_BALANCE = 1e4
"""Upper bound of the adaptive weight, as in the code of Esser et al."""


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
        kind: the losses, see above.
        r1: weight of the penalty on the critic's gradient at real images; 0 for none.
        start: epoch at which the critic starts.
        channels: channels of the critic's first scale.
        critic_lr: the critic's learning rate; None for that of the model.
        data_shape: (C, H, W) of an image.
        steps_per_epoch: optimiser steps in an epoch.
    """

    capabilities = CAPABILITIES - {"compile", "vmap"}  # gradients within the loss
    per_image = False
    is_adaptive = True

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        beta_schedule: BetaSchedule,
        weight: NonNegativeFloat,
        adaptive: bool,
        kind: Literal["hinge", "nonsaturating"],
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
        real, fake = self._observed(trace, trace.x), self._observed(trace, trace.px.mean).flatten(0, 1)
        logits = self.critic(fake)
        adversarial = (-logits if self.kind == "hinge" else F.softplus(-logits)).mean()
        balance = self._balance(distortion, adversarial, trace.px.parameters)
        loss = distortion + beta * rate + active * self.weight * balance * adversarial
        # Each loss only trains its own parameters: those of the critic, or those of the model.
        critic_loss = active * self._critic_loss(real.detach(), fake.detach())
        logged = {"beta": beta, "adversarial": adversarial, "balance": balance}
        return {"loss": loss, "critic_loss": critic_loss} | logged

    @override
    def statistics(self, trace: Trace, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"balance": scalars["balance"]}

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        self.balance.copy_(statistics["balance"])

    def _observed(self, trace: Trace, x: Tensor) -> Tensor:
        """`x` with 0 for missing pixels, so that the critic ignores them."""
        return x if trace.mask is None else torch.where(trace.mask, x, 0.0)

    def _balance(self, distortion: Tensor, adversarial: Tensor, decoded: Tensor | None) -> Tensor:
        if not self.adaptive:
            return torch.ones_like(distortion)
        if not torch.is_grad_enabled():
            return self.balance.to(distortion.dtype, copy=True)
        assert decoded is not None, "p(x | z) has no decoder output"
        norms = [
            torch.autograd.grad(term, decoded, retain_graph=True)[0].float().norm()
            for term in (distortion, adversarial)
        ]
        return (norms[0] / (norms[1] + 1 / MAX_BALANCE)).clamp(max=MAX_BALANCE).to(distortion.dtype)

    def _critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        # Gradients are disabled in evaluation, but R1 needs one.
        with torch.enable_grad():
            real = real.requires_grad_(self.r1 > 0)
            real_logits, fake_logits = self.critic(real), self.critic(fake)
            if self.kind == "hinge":
                loss = 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())
            else:
                loss = 0.5 * (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean())
            if not self.r1:
                return loss
            (gradient,) = torch.autograd.grad(real_logits.mean(-1).sum(), real, create_graph=True)
            return loss + 0.5 * self.r1 * gradient.square().flatten(1).sum(-1).mean()
