"""The largest singular value of weights."""

import torch
from torch import Tensor, nn

POWER_STEPS = 10
"""Steps of the power iteration, which always starts from the same vector."""


def squared_spectral_norm(weight: Tensor) -> Tensor:
    """The squared largest singular value of the matrix `(out, everything else)`, by power iteration."""
    matrix = weight.flatten(1)
    with torch.no_grad():
        right = torch.full_like(matrix[0], matrix.shape[1] ** -0.5)
        right = right + 0.1 * torch.linspace(-1.0, 1.0, len(right), dtype=right.dtype, device=right.device)
        for _ in range(POWER_STEPS):
            left = nn.functional.normalize(matrix @ right, dim=0)
            right = nn.functional.normalize(matrix.T @ left, dim=0)
    return (left @ matrix @ right).square()
