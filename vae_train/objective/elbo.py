"""-E_q[log p(x | z)] + beta · KL(q(z | x) || p(z)), and the KL's two usual floors.

With a capacity C in nats that rises in a straight line (Burgess et al., 2018, eq. 8):

    distortion + beta · |rate - C(t)|

With free bits λ in nats, of every unit or layer j (Kingma et al., 2016, eq. 15):

    distortion + beta · sum_j max(λ, mean of rate_j over the batch)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Objective, factorized_refusal, filled, unit_rates
from vae_train.objective.schedule.linear import LinearBeta
from vae_train.util.numbers import Number
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class ELBO(Objective):
    """The negative ELBO (Kingma & Welling, 2014, eq. 3), with a weight on the KL (Higgins et al., 2017, eq. 4).

    The weight multiplies a KL in nats, summed over the latents, against a distortion in nats, summed over the pixels:
    beta = 1 is the bound itself. (Code that averages over pixels uses beta / D.)

    Args:
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
        num_samples: draws of z per image that the distortion is averaged over.
        capacity: the rate in nats that every image is held at in the end; None for none.
        capacity_epochs: epochs in which it rises from 0.
        free_bits: the rate in nats below which nothing is gained; 0 for none.
        free_bits_per: what has as many: a "unit" of z, or a "group", which is all of a latent layer.
        steps_per_epoch: optimiser steps in an epoch.

    Raises:
        ValueError: both a capacity and free bits.
    """

    def __init__(
        self,
        beta: NonNegativeFloat,
        beta_schedule: Callable[[int | Tensor], Number],
        num_samples: PositiveInt,
        capacity: NonNegativeFloat | None,
        capacity_epochs: PositiveFloat,
        free_bits: NonNegativeFloat,
        free_bits_per: Literal["unit", "group"],
        steps_per_epoch: float,
    ) -> None:
        super().__init__(num_samples)
        if capacity is not None and free_bits:
            raise ValueError("capacity and free_bits both hold the rate up: give capacity=null or free_bits=0")
        self.beta, self.beta_schedule = beta, beta_schedule
        self.capacity, self.rising = capacity, LinearBeta(steps_per_epoch, capacity_epochs, start=0.0)
        self.free_bits, self.free_bits_per = free_bits, free_bits_per

    @classmethod
    @override
    def refusal(cls, posterior: Any, prior: Any, likelihood: Any, **knobs: Any) -> str | None:
        why = super().refusal(posterior, prior, likelihood, **knobs)
        if why or not knobs["free_bits"] or knobs["free_bits_per"] == "group":
            return why
        why = factorized_refusal(posterior, "has free bits for every unit of z")
        if why:
            return f"{why}, or objective.free_bits_per=group"
        if prior.is_factorized:
            return None
        return (
            "has free bits for every unit of z, and the elements of this prior are not independent. Use "
            "objective.free_bits_per=group, or model/prior=standard_normal"
        )

    @classmethod
    def couples_batch(cls, **knobs: Any) -> bool:
        """See `Objective.couples_batch`: free bits look at the mean rate of a batch."""
        return bool(knobs["free_bits"])

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        distortion, rate = trace.distortion(), trace.rate()  # (B,) each
        beta = filled(self.beta * self.beta_schedule(step), rate)
        if self.free_bits:
            floored = self._floored(trace)
            return {"loss": distortion.mean() + beta * floored, "beta": beta, "floored_rate": floored}
        if self.capacity is None:
            return {"loss": (distortion + beta * rate).mean(), "beta": beta}
        capacity = filled(self.capacity * self.rising(step), rate)
        return {"loss": (distortion + beta * (rate - capacity).abs()).mean(), "beta": beta, "capacity": capacity}

    def _floored(self, trace: Trace) -> Tensor:
        """The mean rate of the batch, in which no unit or layer has less than `free_bits`: a scalar in nats."""
        if self.free_bits_per == "group":
            means = [latent.rate().mean() for latent in trace.latents]
        else:
            means = [unit_rates(latent).mean(0) for latent in trace.latents]
        return torch.stack([mean.clamp(min=self.free_bits).sum() for mean in means]).sum()
