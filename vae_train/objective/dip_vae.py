"""distortion + beta · rate + off_diagonal · sum_(i≠j) C_ij² + diagonal · sum_i (C_ii - 1)²      (DIP-VAE).

Kumar et al., 2018, Variational Inference of Disentangled Latent Concepts from Unlabeled Observations, arXiv:1711.00848,
eq. 6 and 7, with the covariance over the images of a batch of

    I:  the posterior's means,        C = Cov_x[mean(x)]
    II: z itself,                     C = Cov_x[mean(x)] + E_x[diag variance(x)]
"""

from typing import Any, Literal

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.model.traits import ModelTraits
from vae_train.objective.base import Context, WeightedRate
from vae_train.objective.schedule import BetaSchedule
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class DIPVAE(WeightedRate):
    """The negative ELBO with a penalty that keeps the covariance of z in the first latent layer near the identity.

    Args:
        num_samples: samples of z per image.
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
        kind: the covariance of the means ("i") or of z ("ii").
        off_diagonal: weight of squared covariances.
        diagonal: weight of the squared distance of variances from 1.
    """

    needs_single_layer = "the covariance of z"
    needs_factorized = "for the mean and the variance of every dimension of z"
    per_image = False
    gathers = True

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        beta_schedule: BetaSchedule,
        kind: Literal["i", "ii"],
        off_diagonal: NonNegativeFloat,
        diagonal: NonNegativeFloat,
    ) -> None:
        super().__init__(num_samples, beta, beta_schedule)
        self.kind, self.off_diagonal, self.diagonal = kind, off_diagonal, diagonal

    @classmethod
    @override
    def check_compatible(cls, model: ModelTraits, **settings: Any) -> Incompatible | None:
        if any(layer.support != "real" for layer in model.layers):
            reason = "keeps the covariance of z near the identity, which needs latents in R^D"
            return Incompatible(reason, {"objective": "elbo", "posterior": "gaussian"})
        return super().check_compatible(model, **settings)

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        distortion, rate = trace.distortion(), trace.rate()
        beta = self.beta_at(context.step, rate)
        q = trace.latents[0].q
        mean = q.mean.flatten(1)  # (B, D)
        centered = mean - context.whole.mean(mean.mean(0))
        covariance = context.whole.mean(centered.T @ centered / len(mean))
        if self.kind == "ii":
            covariance = covariance + context.whole.mean(q.variance.flatten(1).mean(0)).diag_embed()
        variances = covariance.diagonal()
        off = covariance.square().sum() - variances.square().sum()
        penalty = self.off_diagonal * off + self.diagonal * (variances - 1).square().sum()
        return {"loss": (distortion + beta * rate).mean() + penalty, "beta": beta, "penalty": penalty}
