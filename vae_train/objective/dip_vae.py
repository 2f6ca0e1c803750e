"""distortion + beta · rate + off_diagonal · sum_(i≠j) C_ij² + diagonal · sum_i (C_ii - 1)²      (DIP-VAE).

Kumar et al., 2018, eq. 6 and 7, with the covariance over the images of a batch of

    I:  the posterior's means,        C = Cov_x[mean(x)]
    II: z itself,                     C = Cov_x[mean(x)] + E_x[diag variance(x)]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Objective, factorized_refusal, filled
from vae_train.util.numbers import Number
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class DIPVAE(Objective):
    """The negative ELBO, and what holds the covariance of z near the identity. The first latent layer is looked at.

    Args:
        num_samples: draws of z per image that the distortion is averaged over.
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
        kind: the covariance of the means ("i") or of z ("ii").
        off_diagonal: weight of squared covariances.
        diagonal: weight of the squared distance of variances from 1.
    """

    per_image = False

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        beta_schedule: Callable[[int | Tensor], Number],
        kind: Literal["i", "ii"],
        off_diagonal: NonNegativeFloat,
        diagonal: NonNegativeFloat,
    ) -> None:
        super().__init__(num_samples)
        self.beta, self.beta_schedule, self.kind = beta, beta_schedule, kind
        self.off_diagonal, self.diagonal = off_diagonal, diagonal

    @classmethod
    @override
    def refusal(cls, posterior: Any, prior: Any, likelihood: Any, **knobs: Any) -> str | None:
        why = super().refusal(posterior, prior, likelihood, **knobs)
        if why or posterior.support == "real":
            return why or factorized_refusal(posterior, "needs the mean and the variance of every element of z")
        return "holds the covariance of z near the identity, which only latents in R^D have. Use objective=elbo"

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        distortion, rate = trace.distortion(), trace.rate()
        beta = filled(self.beta * self.beta_schedule(step), rate)
        q = trace.latents[0].q
        mean = q.mean.flatten(1)  # (B, D)
        centered = mean - mean.mean(0)
        covariance = centered.T @ centered / len(mean)
        if self.kind == "ii":
            covariance = covariance + q.variance.flatten(1).mean(0).diag_embed()
        variances = covariance.diagonal()
        off = covariance.square().sum() - variances.square().sum()
        penalty = self.off_diagonal * off + self.diagonal * (variances - 1).square().sum()
        return {"loss": (distortion + beta * rate).mean() + penalty, "beta": beta, "penalty": penalty}
