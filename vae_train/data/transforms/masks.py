"""Masks that hide a part of images, by name."""

from typing import Literal

import torch
from torch import Tensor

from vae_train.data.transforms.corruption import Corruption
from vae_train.rng import Rng

MaskName = Literal["random", "half", "centre", "patch"]
"""What is hidden: random pixels, the lower half (the right half of vectors and signals), the middle half of rows and
columns, or random squares."""

HIDDEN_FRACTION = 0.5
"""Probability that "random" hides a pixel, and "patch" a square."""

PATCHES = 4
"""Number of squares along the longer side."""


def seen_pixels(name: MaskName, x: Tensor, rng: Rng) -> Tensor:
    """The pixels that a mask does not hide, bool with shape `(B, 1, H, W)`.

    Args:
        name: the mask.
        x: images `(B, C, H, W)`.
        rng: the noise of random masks.
    """
    height, width = x.shape[-2:]
    if name in ("random", "patch"):
        side = 1 if name == "random" else -(-max(height, width) // PATCHES)
        hidden = Corruption(0.0, HIDDEN_FRACTION, side, "observed").hidden(x, rng)
        assert hidden is not None
        return ~hidden
    seen = torch.ones(len(x), 1, height, width, dtype=torch.bool, device=x.device)
    if name == "centre":
        seen[..., _middle(height), _middle(width)] = False
    elif height > 1:
        seen[..., (height + 1) // 2 :, :] = False
    else:
        seen[..., (width + 1) // 2 :] = False
    return seen


def _middle(size: int) -> slice:
    """The middle half of `size` pixels."""
    half = max(1, size // 2)
    return slice((size - half) // 2, (size - half) // 2 + half)
