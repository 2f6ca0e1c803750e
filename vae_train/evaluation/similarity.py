"""What the similarities of images share."""

from __future__ import annotations

from torch import Tensor


def to_float64(x: Tensor) -> Tensor:
    """Converts images to float64, where variances of flat images do not round to 0; not on Apple's GPUs."""
    return x if x.device.type == "mps" else x.double()
