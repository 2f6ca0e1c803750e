"""distortion + (1 - alpha) · rate + (alpha + weight - 1) · MMD(q(z), p(z))      (InfoVAE; Zhao et al., 2019).

`weight` is the paper's λ. alpha = 0 with weight = 1 is the ELBO; alpha = 1 is MMD-VAE, which has no rate.
"""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Objective, prior_draws
from vae_train.objective.discrepancies import Kernel, mmd
from vae_train.util.ranges import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


class InfoVAE(Objective):
    """Keeps information about x in z (alpha) while q(z), over all images, stays near the prior (weight).

    Args:
        num_samples: draws of z per image.
        alpha: how much of the mutual information of x and z is not paid for.
        weight: λ, weight of the distance of q(z) from the prior.
        kernel: see `discrepancies.mmd`.
        scales: see `discrepancies.mmd`.

    Raises:
        ValueError: the distance would be rewarded.
    """

    per_image = False

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
                f"alpha + weight is {alpha + weight:g}, which rewards a q(z) far from the prior: give 1 or more"
            )
        if not scales:
            raise ValueError("scales is empty: give at least one, for instance [1]")
        self.alpha, self.weight, self.kernel, self.scales = alpha, weight, kernel, scales

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        z, drawn = trace.latents[0].z.flatten(2), prior_draws(trace).flatten(1)
        distance = mmd(z, drawn, self.kernel, self.scales)
        loss = (trace.distortion() + (1 - self.alpha) * trace.rate()).mean()
        return {"loss": loss + (self.alpha + self.weight - 1) * distance, "mmd": distance}
