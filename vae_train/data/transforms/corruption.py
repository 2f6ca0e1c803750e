"""Corruption of the encoder's input: noise for denoising, hidden pixels for inpainting and missing data."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.batch import DataFacts
from vae_train.rng import Rng
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import Fraction, NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class Corruption:
    """Corrupts the encoder's input in training; the target stays clean.

    Noise without a mask gives the denoising criterion ("Denoising Criterion for Variational Auto-Encoding Framework",
    arXiv:1511.06406): the decoder reconstructs the clean image. With hidden pixels and `score: observed` the likelihood
    only covers the visible pixels, which gives the ELBO for values missing completely at random ("MIWAE: Deep
    Generative Modelling and Imputation of Incomplete Data Sets", arXiv:1812.02633, with K = 1 and zeros for missing
    values).

    Args:
        noise: standard deviation of the normal noise that is added to every value.
        mask: probability that a pixel is hidden (set to 0 in all channels).
        patch: side of the hidden squares.
        score: whether the likelihood covers "all" pixels or only the "observed" ones.
    """

    noise: NonNegativeFloat
    mask: Fraction
    patch: PositiveInt
    score: Literal["all", "observed"]

    def __post_init__(self) -> None:
        if self.mask == 1:
            raise ValueError("mask=1 would hide every pixel")

    def check_compatible(self, facts: DataFacts) -> Incompatible | None:
        """Why the data cannot be corrupted with these settings; None if it can."""
        height, width = facts.data_shape[1:]
        if not self.mask or self.patch < max(height, width) or height * width == 1:
            return None
        reason = f"patch={self.patch} hides images of {height}x{width} pixels completely or not at all"
        return Incompatible(reason, {"corruption.patch": str(max(1, max(height, width) // 4))})

    @property
    def active(self) -> bool:
        """Whether it has an effect."""
        return bool(self.noise or self.mask)

    def hidden(self, x: Tensor, rng: Rng) -> Tensor | None:
        """Samples the hidden pixels: bool with shape `(B, 1, H, W)`, or None for none."""
        if not self.mask:
            return None
        height, width = x.shape[-2:]
        size = (1, len(x), 1, -(-height // self.patch), -(-width // self.patch))
        squares = (rng.uniform(size)[0] < self.mask).float()
        return F.interpolate(squares, scale_factor=self.patch, mode="nearest")[..., :height, :width] > 0.5

    @property
    def masks(self) -> bool:
        """Whether the likelihood leaves pixels out."""
        return bool(self.mask) and self.score == "observed"

    def mask_of(self, hidden: Tensor | None, observed: Tensor | None = None) -> Tensor | None:
        """`Batch.mask` for hidden pixels `(B, 1, H, W)` and observed values `(B, C, H, W)`; None if all count."""
        if hidden is None or self.score == "all":
            return observed
        return ~hidden if observed is None else observed & ~hidden

    def encoder_input(self, x: Tensor, hidden: Tensor | None, rng: Rng) -> Tensor | None:
        """`Batch.encoder_input`, with the shape of `x`; None if nothing is corrupted."""
        if self.noise:
            x = x + self.noise * rng.normal((1, *x.shape))[0]
        if hidden is not None:
            x = torch.where(hidden, 0.0, x)
        return x if self.active else None
