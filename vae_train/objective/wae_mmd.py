"""distortion + weight · MMD(q(z), p(z))      (WAE-MMD; Tolstikhin et al., 2018, algorithm 2)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.objective.base import Objective, prior_draws
from vae_train.objective.discrepancies import Kernel, mmd
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class WAEMMD(Objective):
    """A Wasserstein autoencoder: all images together have to look like the prior, and no single one does.

    The cost of a reconstruction is -log p(x | z); with model/likelihood=gaussian and a fixed sigma that is the paper's
    squared error / (2 sigma²).

    Args:
        num_samples: draws of z per image.
        weight: λ, weight of the distance.
        kernel: see `discrepancies.mmd`.
        scales: see `discrepancies.mmd`.
    """

    needs_density = False
    per_image = False

    def __init__(
        self, num_samples: PositiveInt, weight: NonNegativeFloat, kernel: Kernel, scales: list[PositiveFloat]
    ) -> None:
        super().__init__(num_samples)
        if not scales:
            raise ValueError("scales is empty: give at least one, for instance [1]")
        self.weight, self.kernel, self.scales = weight, kernel, scales

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        z, drawn = trace.latents[0].z.flatten(2), prior_draws(trace).flatten(1)
        distance = mmd(z, drawn, self.kernel, self.scales)
        return {"loss": trace.distortion().mean() + self.weight * distance, "mmd": distance}
