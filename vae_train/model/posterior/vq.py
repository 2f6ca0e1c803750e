"""Vector quantisation: every code is the vector of a learned codebook that is nearest to the encoder's output.

van den Oord et al., 2017, Neural Discrete Representation Learning, arXiv:1711.00937, eq. 1 to 3 and appendix A.1.
"""

from typing import Literal

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.codes.codebooks import Learning
from vae_train.model.posterior.base import LearnedCodePosterior
from vae_train.util.ranges import Decay, Fraction, NonNegativeFloat, PositiveInt


class VectorQuantized(LearnedCodePosterior):
    """One learned codebook for all codes, with a straight-through gradient; see `LearnedCodePosterior` for the loss.

    Args:
        event_shape: shape of z: (C,) for one code, (C, H, W) for H x W codes, of C numbers each.
        num_codes: size of the codebook.
        learning: "ema" for moving averages of the encoder's outputs; "gradient" for a loss.
        decay: decay of the moving averages, also of how often a code is used.
        commitment: weight of the squared distance of the encoder's outputs from their codes.
        revive: a code that is used less than this fraction of the average is replaced; 0 for never.
        start: "data" for k-means of the encoder's outputs for training images; "random" for normal numbers.
    """

    def __init__(
        self,
        event_shape: Shape,
        num_codes: PositiveInt,
        learning: Learning,
        decay: Decay,
        commitment: NonNegativeFloat,
        revive: Fraction,
        start: Literal["data", "random"],
    ) -> None:
        super().__init__(event_shape, 1, num_codes, learning, decay, commitment, revive, start)

    @override
    def to_indices(self, codes: Tensor) -> Tensor:
        return codes.squeeze(-1)

    @override
    def to_codes(self, indices: Tensor) -> Tensor:
        return indices.unsqueeze(-1)
