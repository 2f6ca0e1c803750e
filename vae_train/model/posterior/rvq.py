"""Residual vector quantisation: a sum of vectors, each from a codebook for what the former ones left over.

Zeghidour et al., 2021, SoundStream: An End-to-End Neural Audio Codec, arXiv:2107.03312, section III-C.
"""

from typing import Literal

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.codes.codebooks import Learning
from vae_train.model.posterior.base import LearnedCodePosterior
from vae_train.util.ranges import Decay, Fraction, NonNegativeFloat, PositiveInt


class ResidualQuantized(LearnedCodePosterior):
    """Several learned codebooks; z is the sum of a vector of each, and has as many codes at every place.

    The indices of a z that is not the result of quantisation are found from the first codebook to the last (greedily).

    Args:
        event_shape: shape of z: (C,) or (C, H, W), vectors of C numbers.
        quantizers: number of codebooks.
        num_codes: size of each codebook.
        learning: "ema" for moving averages of the inputs of the codebooks; "gradient" for a loss.
        decay: decay of the moving averages, also of how often a code is used.
        commitment: weight of the squared distances of the codebooks' inputs from their codes.
        revive: a code that is used less than this fraction of the average is replaced; 0 for never.
        start: "data" for k-means of the encoder's outputs for training images; "random" for normal numbers.
    """

    def __init__(
        self,
        event_shape: Shape,
        quantizers: PositiveInt,
        num_codes: PositiveInt,
        learning: Learning,
        decay: Decay,
        commitment: NonNegativeFloat,
        revive: Fraction,
        start: Literal["data", "random"],
    ) -> None:
        super().__init__(event_shape, quantizers, num_codes, learning, decay, commitment, revive, start)
        self.code_shape = (*self.places, quantizers)

    @override
    def to_indices(self, codes: Tensor) -> Tensor:
        return codes

    @override
    def to_codes(self, indices: Tensor) -> Tensor:
        return indices
