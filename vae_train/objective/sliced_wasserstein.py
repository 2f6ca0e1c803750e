"""distortion + weight · SW²(q(z), p(z))      (sliced-Wasserstein autoencoder; Kolouri et al., 2019)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Objective, prior_draws
from vae_train.objective.discrepancies import sliced_wasserstein
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class SlicedWasserstein(Objective):
    """An autoencoder whose latents are moved to the prior along random lines; it needs no density and no kernel.

    Args:
        num_samples: draws of z per image.
        weight: λ, weight of the squared distance.
        projections: random directions per step.
    """

    needs_density = False
    per_image = False

    def __init__(self, num_samples: PositiveInt, weight: NonNegativeFloat, projections: PositiveInt) -> None:
        super().__init__(num_samples)
        self.weight, self.projections = weight, projections

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        z, drawn = trace.latents[0].z.flatten(2), prior_draws(trace).flatten(1)
        assert trace.rng is not None
        directions = trace.rng.normal((self.projections, z.shape[-1]), z.dtype)
        distance = sliced_wasserstein(z, drawn, directions)
        return {"loss": trace.distortion().mean() + self.weight * distance, "sliced_wasserstein": distance}
