"""Elementary functions of Python numbers and tensors."""

import math
from typing import Any

import torch
from torch import Tensor

Number = int | float | Tensor


def finite(value: Any) -> float | None:
    """`value` as a float, or None if it is not a finite number. For values from untrusted files."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def clamp(x: Number, low: float = 0.0, high: float = 1.0) -> Number:
    """`x` limited to the interval from `low` to `high`."""
    return x.clamp(low, high) if isinstance(x, Tensor) else min(max(x, low), high)


def cos(x: Number) -> Number:
    """The cosine of `x`."""
    return torch.cos(x) if isinstance(x, Tensor) else math.cos(x)


def sigmoid(x: Number) -> Number:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x) if isinstance(x, Tensor) else 1 / (1 + math.exp(-x))


def to_float64(x: Tensor) -> Tensor:
    """`x` in float64, or unchanged on a device that does not support it."""
    return x if x.device.type == "mps" else x.double()
