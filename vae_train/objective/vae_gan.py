"""distortion + beta · rate + w · adversarial(mean(x | z)), with a critic of patches      (VAE-GAN).

Larsen et al., 2016; the form of Esser et al., 2021, eq. 5 - 7, whose weight balances the two at the decoder's output h:

    w = weight · |d distortion / dh| / |d adversarial / dh|

    hinge:          critic: ½ E[max(0, 1 - D(x))] + ½ E[max(0, 1 + D(x̂))]           adversarial: -E[D(x̂)]
    nonsaturating:  critic: ½ E[softplus(-D(x))] + ½ E[softplus(D(x̂))]              adversarial: E[softplus(-D(x̂))]
    both with R1:   critic: + r1 / 2 · E |dD(x) / dx|²                               (Mescheder et al., 2018, eq. 9)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from vae_train.model.family import CAPABILITIES
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective, filled
from vae_train.objective.critics import PatchCritic
from vae_train.util.numbers import Number
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt

MOST = 1e4
"""Where the adaptive weight is cut off, as in the code of Esser et al."""


class VAEGAN(Objective):
    """The negative ELBO, and a critic that has to be deceived by the likelihood's mean; the likelihood stays one.

    (Larsen et al. compare features of the critic in place of pixels, which leaves no likelihood.)

    Args:
        num_samples: draws of z per image.
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
        weight: weight of the critic's opinion.
        adaptive: whether that is relative to the gradient of the distortion, at the decoder's output. Evaluation takes
            the last update's.
        kind: the losses, see above.
        r1: weight of the critic's gradient at images of the data; 0 for none.
        start: epoch from which on there is a critic.
        channels: of the critic's first scale.
        critic_lr: the critic's learning rate; None for that of the model.
        data_shape: (C, H, W) of an image.
        steps_per_epoch: optimiser steps in an epoch.
    """

    capabilities = CAPABILITIES - {"compile", "vmap"}  # gradients within the loss
    per_image = False

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        beta_schedule: Callable[[int | Tensor], Number],
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
        super().__init__(num_samples)
        self.beta, self.beta_schedule = beta, beta_schedule
        self.weight, self.adaptive, self.kind, self.r1, self.critic_lr = weight, adaptive, kind, r1, critic_lr
        self.first_step = start * steps_per_epoch
        self.critic = PatchCritic(data_shape, channels)
        self.balance: Tensor
        self.register_buffer("balance", torch.ones(()))

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        distortion, rate = trace.distortion().mean(), trace.rate().mean()
        beta = filled(self.beta * self.beta_schedule(step), rate)
        begun = filled(1.0 * (step >= self.first_step), rate)
        real, fake = self._seen(trace, trace.x), self._seen(trace, trace.px.mean).flatten(0, 1)
        judged = self.critic(fake)
        adversarial = (-judged if self.kind == "hinge" else F.softplus(-judged)).mean()
        balance = self._balance(distortion, adversarial, trace)
        loss = distortion + beta * rate + begun * self.weight * balance * adversarial
        # The critic's loss is for its own parameters alone, and the model's for the model's.
        critic_loss = begun * self._critic_loss(real.detach(), fake.detach())
        found = {"beta": beta, "adversarial": adversarial, "balance": balance}
        return {"loss": loss, "critic_loss": critic_loss} | found

    def update_state(self, scalars: dict[str, Tensor]) -> None:
        """Keeps the balance for evaluation, see `Objective.update_state`."""
        self.balance.copy_(scalars["balance"])

    def _seen(self, trace: Trace, x: Tensor) -> Tensor:
        """What the critic sees of images: nothing of pixels that are missing."""
        return x if trace.mask is None else torch.where(trace.mask, x, 0.0)

    def _balance(self, distortion: Tensor, adversarial: Tensor, trace: Trace) -> Tensor:
        if not self.adaptive:
            return torch.ones_like(distortion)
        if not torch.is_grad_enabled():
            return self.balance.to(distortion.dtype, copy=True)
        assert trace.decoded is not None, "this objective needs a model that hands its decoder's output on"
        norms = [
            torch.autograd.grad(term, trace.decoded, retain_graph=True)[0].float().norm()
            for term in (distortion, adversarial)
        ]
        return (norms[0] / (norms[1] + 1 / MOST)).clamp(max=MOST).to(distortion.dtype)

    def _critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        # Evaluation has no gradient, and R1 is one.
        with torch.enable_grad():
            real = real.requires_grad_(self.r1 > 0)
            there, here = self.critic(real), self.critic(fake)
            if self.kind == "hinge":
                loss = 0.5 * (F.relu(1 - there).mean() + F.relu(1 + here).mean())
            else:
                loss = 0.5 * (F.softplus(-there).mean() + F.softplus(here).mean())
            if not self.r1:
                return loss
            (gradient,) = torch.autograd.grad(there.mean(-1).sum(), real, create_graph=True)
            return loss + 0.5 * self.r1 * gradient.square().flatten(1).sum(-1).mean()
