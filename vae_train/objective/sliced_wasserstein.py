"""distortion + weight · SW²(q(z), p(z))      (sliced-Wasserstein autoencoder).

Kolouri et al., 2019, Sliced-Wasserstein Autoencoder, arXiv:1804.01947.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context, Objective, all_latents
from vae_train.objective.discrepancies import sliced_wasserstein
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class SlicedWasserstein(Objective):
    """An autoencoder that matches its latents to the prior along random projections.

    Args:
        num_samples: samples of z per image.
        weight: λ, weight of the squared distance.
        projections: number of random projections per step.
    """

    codes_error = "matches the distribution of z to the prior, but the choice of codes has no gradient"
    needs_single_layer = "the distance of q(z) from p(z)"
    needs_density = False
    per_image = False
    gathers = True

    def __init__(self, num_samples: PositiveInt, weight: NonNegativeFloat, projections: PositiveInt) -> None:
        super().__init__(num_samples)
        self.weight, self.projections = weight, projections

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        z, prior_z = all_latents(trace, context)
        shape = (self.projections, z.shape[-1])
        if context.rng.rows is None:
            directions = context.rng.normal(shape, z.dtype)
        else:
            with context.rng.uncut():  # all processes have the same directions
                directions = context.rng.normal(shape, z.dtype)
        distance = sliced_wasserstein(z, prior_z, directions)
        return {"loss": trace.distortion().mean() + self.weight * distance, "sliced_wasserstein": distance}
