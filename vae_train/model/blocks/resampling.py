"""Resampling of maps to any height and width by fixed matrices.

Products of matrices have deterministic gradients on every device, unlike PyTorch's bilinear interpolation on CUDA.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

Size = tuple[int, int]
"""Height and width."""


def resampling_matrix(inputs: int, outputs: int) -> Tensor:
    """The matrix `(outputs, inputs)` that interpolates one side linearly, with antialiasing if it shrinks.

    A row has the weights of one output pixel: a triangle around its centre, as wide as two pixels of the coarser side.
    Rows sum to 1, so that constant maps stay constant.
    """
    step = inputs / outputs
    centers = (torch.arange(outputs, dtype=torch.float64) + 0.5) * step - 0.5
    distance = (centers[:, None] - torch.arange(inputs)).abs() / max(step, 1.0)
    weights = (1 - distance).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float()


class Resample(nn.Module):
    """Resamples maps `(N, C, *before)` to `(N, C, *after)`, see `resampling_matrix`.

    Args:
        before: height and width of the input.
        after: height and width of the output.
    """

    def __init__(self, before: Size, after: Size) -> None:
        super().__init__()
        self.rows = nn.Buffer(resampling_matrix(before[0], after[0]), persistent=False)
        self.columns = nn.Buffer(resampling_matrix(before[1], after[1]), persistent=False)

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self.rows @ h @ self.columns.T
