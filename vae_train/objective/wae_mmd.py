"""distortion + weight · MMD(q(z), p(z))      (WAE-MMD).

Tolstikhin et al., 2018, Wasserstein Auto-Encoders, arXiv:1711.01558, algorithm 2.
"""

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Context, Objective, all_latents
from vae_train.objective.discrepancies import Kernel, mmd
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class WAEMMD(Objective):
    """A Wasserstein autoencoder: it matches the aggregate posterior, not that of each image, to the prior.

    The reconstruction cost is -log p(x | z). For a Gaussian likelihood with a fixed scale it is the paper's
    squared error / (2 scale²).

    Args:
        num_samples: samples of z per image.
        weight: λ, weight of the distance.
        kernel: see `discrepancies.mmd`.
        scales: see `discrepancies.mmd`.
    """

    codes_error = "matches the distribution of z to the prior, but the choice of codes has no gradient"
    needs_single_layer = "the distance of q(z) from p(z)"
    needs_density = False
    per_image = False
    gathers = True

    def __init__(
        self, num_samples: PositiveInt, weight: NonNegativeFloat, kernel: Kernel, scales: list[PositiveFloat]
    ) -> None:
        super().__init__(num_samples)
        if not scales:
            raise ValueError("scales is empty; use at least one scale, for instance [1]")
        self.weight, self.kernel, self.scales = weight, kernel, scales

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        z, prior_z = all_latents(trace, context)
        distance = mmd(z, prior_z, self.kernel, self.scales)
        return {"loss": trace.distortion().mean() + self.weight * distance, "mmd": distance}
