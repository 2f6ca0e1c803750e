"""What the encoder is kept from seeing: noise for denoising, hidden pixels for inpainting and missing data."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.rng import Rng
from vae_train.util.ranges import Fraction, NonNegativeFloat, PositiveInt


class Corruption:
    """Damages what the encoder sees of training images; the target stays clean.

    With noise alone this is the denoising criterion (Im et al., 2017): the decoder is asked for the clean image. With
    hidden pixels and `score: observed` the likelihood counts the visible ones alone, which is the ELBO of data with
    values missing completely at random (Mattei & Frellsen, 2019, with one sample and zeros for what is missing).

    Args:
        noise: standard deviation of normal noise that is added to every value.
        mask: probability with which a pixel is hidden (set to 0), all its channels together.
        patch: side of the squares that are hidden as one.
        score: whether the likelihood counts "all" pixels or the "observed" ones alone.
    """

    def __init__(
        self, noise: NonNegativeFloat, mask: Fraction, patch: PositiveInt, score: Literal["all", "observed"]
    ) -> None:
        if mask == 1:
            raise ValueError("mask=1 would hide every pixel")
        self.noise, self.mask, self.patch, self.score = noise, mask, patch, score

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return bool(self.noise or self.mask)

    def hidden(self, x: Tensor, rng: Rng) -> Tensor | None:
        """Which pixels are hidden: bool with shape `(B, 1, H, W)`, or None where none are."""
        if not self.mask:
            return None
        height, width = x.shape[-2:]
        size = (1, len(x), 1, -(-height // self.patch), -(-width // self.patch))
        squares = (rng.uniform(size)[0] < self.mask).float()
        return F.interpolate(squares, scale_factor=self.patch, mode="nearest")[..., :height, :width] > 0.5

    def scored_mask(self, hidden: Tensor | None) -> Tensor | None:
        """`Batch.mask` for what `hidden` found."""
        return None if hidden is None or self.score == "all" else ~hidden

    def seen(self, x: Tensor, hidden: Tensor | None, rng: Rng) -> Tensor | None:
        """`Batch.encoder_input`, with the shape of `x`; None where nothing is damaged."""
        if self.noise:
            x = x + self.noise * rng.normal((1, *x.shape))[0]
        if hidden is not None:
            x = torch.where(hidden, 0.0, x)
        return x if self.active else None
