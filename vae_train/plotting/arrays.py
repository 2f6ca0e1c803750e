"""Tensors and arrays as float64 arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = Tensor | NDArray[Any]


def to_float_array(values: Array) -> NDArray[np.float64]:
    """Copies values from any device into a float64 array."""
    return torch.as_tensor(values).detach().cpu().double().numpy()
