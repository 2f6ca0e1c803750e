"""Sylvester flows."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.flows.base import Flow
from vae_train.distributions.multivariate import lower_triangle

MAX_DIAGONAL = 1 - 1e-6
"""Bound of the diagonals of a Sylvester flow, whose product must stay above -1."""


class Sylvester(Flow):
    """y = z + Q R₁ tanh(R₂ Qᵀz + b), Q a product of Householder reflections (van den Berg et al., 2018, eq. 13 and 20).

    R₁ and R₂ are upper triangular. Their diagonals are within (-1, 1), so that 1 + h' r₁ r₂ > 0 and f is invertible;
    log |det df/dz| = sum log(1 + h' r₁ r₂) over the diagonals.

    Args:
        reflections: tensor with shape `(*batch, H, D)`, the vectors that Q reflects along.
        first: R₁ before its diagonal is bounded, as `(*batch, D (D + 1) / 2)` values.
        second: R₂, likewise.
        b: tensor with shape `(*batch, D)`.
    """

    def __init__(self, reflections: Tensor, first: Tensor, second: Tensor, b: Tensor) -> None:
        self.reflections, self.b = F.normalize(reflections, dim=-1), b
        self.first, self.second = (_bounded(values, b.shape[-1]) for values in (first, second))

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        turned = self._reflect(z, range(self.reflections.shape[-2]))  # Qᵀz
        bent = torch.tanh((self.second @ turned[..., None])[..., 0] + self.b)
        product = (self.first * self.second).diagonal(dim1=-2, dim2=-1)
        log_det = torch.log1p((1 - bent.square()) * product).sum(-1)
        moved = (self.first @ bent[..., None])[..., 0]
        return z + self._reflect(moved, reversed(range(self.reflections.shape[-2]))), log_det

    def _reflect(self, z: Tensor, order: Any) -> Tensor:
        """`z` after the reflections: in ascending order Qᵀz, in descending order Qz."""
        for number in order:
            v = self.reflections[..., number, :]
            z = z - 2 * v * (v * z).sum(-1, keepdim=True)
        return z


def _bounded(values: Tensor, size: int) -> Tensor:
    """An upper triangular matrix whose diagonal is within (-1, 1)."""
    free = lower_triangle(values, size).mT
    diagonal = MAX_DIAGONAL * torch.tanh(free.diagonal(dim1=-2, dim2=-1))
    return free.triu(1) + torch.diag_embed(diagonal)
