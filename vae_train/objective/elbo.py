"""-E_q[log p(x | z)] + beta · KL(q(z | x) || p(z)), with two common lower bounds of the KL.

With a capacity C in nats that rises linearly (Burgess et al., 2018, Understanding disentangling in beta-VAE,
arXiv:1804.03599, eq. 8):

    distortion + beta · |rate - C(t)|

With free bits λ in nats for every dimension or layer j (Kingma et al., 2016, Improved Variational Inference with
Inverse Autoregressive Flow, arXiv:1606.04934, eq. 15):

    distortion + beta · sum_j max(λ, mean of rate_j over the batch)
"""

from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import WholeBatch
from vae_train.model.trace import Trace
from vae_train.model.traits import ModelTraits
from vae_train.objective.base import Context, WeightedRate, require_factorized, scalar_like
from vae_train.objective.schedule import BetaSchedule, LinearBeta
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class ELBO(WeightedRate):
    """The negative ELBO with a weight on the KL.

    Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114, eq. 3; Higgins et al., 2017, beta-VAE, eq.
    4. The weight multiplies a KL in nats, summed over the latent dimensions, against a distortion in nats, summed over
    the pixels: beta = 1 is the bound itself. (The mean squared error over D pixels takes 2 beta / D for a normal
    likelihood with scale 1, a mean log-probability beta / D.)

        >>> from vae_train.distributions.normal import Normal
        >>> from vae_train.model.trace import Latent, Trace
        >>> from vae_train.objective.schedule import ConstantBeta
        >>> from vae_train.rng import Rng
        >>> rng, zero = Rng(0, "example"), torch.zeros(2)
        >>> q, p = Normal(torch.ones(4, 2), zero), Normal(zero, zero)
        >>> z = q.sample(rng, 1)  # (K, B, 2)
        >>> trace = Trace(torch.zeros(4, 2), None, (Latent(z, q, p),), Normal(z, zero))
        >>> objective = ELBO(4.0, ConstantBeta(100), 1, None, 1.0, 0.0, "layer", steps_per_epoch=100)
        >>> scalars = objective(None, trace, 0, rng)
        >>> trace.rate().mean(), scalars["loss"] - trace.distortion().mean()
        (tensor(1.), tensor(4.))

    Args:
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
        num_samples: samples of z per image.
        capacity: target rate in nats at the end of its rise; None for none.
        capacity_epochs: epochs over which the target rises from 0.
        free_bits: rate in nats below which the loss does not decrease further; 0 for none.
        free_bits_per: whether every "dimension" of z or every "layer" of latents has this many free bits.
        steps_per_epoch: optimiser steps in an epoch.

    Raises:
        ValueError: both a capacity and free bits.
    """

    gathers = True

    def __init__(
        self,
        beta: NonNegativeFloat,
        beta_schedule: BetaSchedule,
        num_samples: PositiveInt,
        capacity: NonNegativeFloat | None,
        capacity_epochs: PositiveFloat,
        free_bits: NonNegativeFloat,
        free_bits_per: Literal["dimension", "layer"],
        steps_per_epoch: float,
    ) -> None:
        super().__init__(num_samples, beta, beta_schedule)
        if capacity is not None and free_bits:
            raise ValueError("capacity and free_bits are mutually exclusive")
        self.capacity, self.rising = capacity, LinearBeta(steps_per_epoch, capacity_epochs, start=0.0)
        if capacity is not None:
            reached = capacity_epochs * steps_per_epoch
            self.settled_step, self.peak_step = max(self.settled_step, reached), max(self.peak_step, reached)
        self.free_bits, self.free_bits_per = free_bits, free_bits_per

    @override
    def weights(self, step: int) -> dict[str, float]:
        capacity = {} if self.capacity is None else {"capacity": float(self.capacity * self.rising(step))}
        return super().weights(step) | capacity

    @classmethod
    @override
    def check_compatible(cls, model: ModelTraits, **settings: Any) -> Incompatible | None:
        error = super().check_compatible(model, **settings)
        is_quantized = any(layer.is_quantized for layer in model.layers)
        if error is None and is_quantized and (settings["free_bits"] or settings["capacity"] is not None):
            kind = "free bits" if settings["free_bits"] else "a capacity"
            reason = f"bounds the rate by {kind}, but the rate of a point mass on codes has no gradient"
            return Incompatible(reason, {"objective": "elbo"})
        if error is not None or not settings["free_bits"] or settings["free_bits_per"] == "layer":
            return error
        instead = {"objective.free_bits_per": "layer"}
        error = require_factorized(model, "for free bits per dimension")
        if error is not None:
            return error._replace(instead={**error.instead, **instead})
        if all(layer.prior_is_factorized for layer in model.layers):
            return None
        return Incompatible(
            "needs a factorised prior for free bits per dimension", {"prior": "standard_normal", **instead}
        )

    @classmethod
    @override
    def couples_batch(cls, **settings: Any) -> bool:
        return bool(settings["free_bits"])  # the floor applies to the mean rate of the batch

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        distortion, rate = trace.distortion(), trace.rate()  # (B,) each
        beta = self.beta_at(context.step, rate)
        if self.free_bits:
            floored = self._floored(trace, context.whole)
            return {"loss": distortion.mean() + beta * floored, "beta": beta, "floored_rate": floored}
        if self.capacity is None:
            return {"loss": (distortion + beta * rate).mean(), "beta": beta}
        capacity = scalar_like(self.capacity * self.rising(context.step), rate)
        return {"loss": (distortion + beta * (rate - capacity).abs()).mean(), "beta": beta, "capacity": capacity}

    def _floored(self, trace: Trace, whole: WholeBatch) -> Tensor:
        """The mean rate of the batch with at least `free_bits` in every dimension or layer: a scalar in nats."""
        if self.free_bits_per == "layer":
            means = [latent.rate().mean() for latent in trace.latents]
        else:
            means = [latent.rate_elementwise().mean(0) for latent in trace.latents]
        return torch.stack([whole.mean(mean).clamp(min=self.free_bits).sum() for mean in means]).sum()
