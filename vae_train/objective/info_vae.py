"""distortion + (1 - alpha) · rate + (alpha + weight - 1) · MMD(q(z), p(z))      (InfoVAE).

Zhao et al., 2019, InfoVAE: Balancing Learning and Inference in Variational Autoencoders, arXiv:1706.02262; `weight` is
the paper's λ. alpha = 0 with weight = 1 is the ELBO; alpha = 1 is MMD-VAE, which has no rate.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context, Objective, all_latents
from vae_train.objective.discrepancies import Kernel, mmd
from vae_train.util.ranges import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


class InfoVAE(Objective):
    """The ELBO with less weight on the mutual information of x and z, and more on the distance of q(z) from the prior.

    Args:
        num_samples: samples of z per image.
        alpha: fraction of the mutual information of x and z that is not penalised.
        weight: λ, weight of the distance of q(z) from the prior.
        kernel: see `discrepancies.mmd`.
        scales: see `discrepancies.mmd`.

    Raises:
        ValueError: a larger distance would lower the loss.
    """

    codes_error = "matches the distribution of z to the prior, but the choice of codes has no gradient"
    needs_single_layer = "the distance of q(z) from p(z)"
    per_image = False
    gathers = True

    def __init__(
        self,
        num_samples: PositiveInt,
        alpha: Fraction,
        weight: NonNegativeFloat,
        kernel: Kernel,
        scales: list[PositiveFloat],
    ) -> None:
        super().__init__(num_samples)
        if alpha + weight < 1:
            raise ValueError(
                f"alpha + weight = {alpha + weight:g} rewards a q(z) far from the prior; it must be at least 1"
            )
        if not scales:
            raise ValueError("scales is empty; use at least one scale, for instance [1]")
        self.alpha, self.weight, self.kernel, self.scales = alpha, weight, kernel, scales

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        z, prior_z = all_latents(trace, context)
        distance = mmd(z, prior_z, self.kernel, self.scales)
        loss = (trace.distortion() + (1 - self.alpha) * trace.rate()).mean()
        return {"loss": loss + (self.alpha + self.weight - 1) * distance, "mmd": distance}
