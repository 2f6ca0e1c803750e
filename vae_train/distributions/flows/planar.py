"""Planar flows."""

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.flows.base import Flow

EPSILON = 1e-8
"""Added to the squared length of a vector before a division by it."""


class Planar(Flow):
    """y = z + û tanh(wᵀz + b)      (Rezende & Mohamed, 2015, arXiv:1505.05770, eq. 10 to 12).

    u is moved along w to û, for which wᵀû = softplus(wᵀu) - 1 > -1: then f is invertible (their appendix A.1).

    Args:
        u: tensor with shape `(*batch, D)`.
        w: tensor with shape `(*batch, D)`.
        b: tensor with shape `(*batch, 1)`.
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        self.w, self.b = w, b
        inner = (w * u).sum(-1, keepdim=True)
        self.u = u + (F.softplus(inner) - 1 - inner) * w / (w.square().sum(-1, keepdim=True) + EPSILON)

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        bent = torch.tanh((self.w * z).sum(-1, keepdim=True) + self.b)  # (*N, 1)
        slope = (1 - bent.square()) * (self.w * self.u).sum(-1, keepdim=True)
        return z + self.u * bent, torch.log1p(slope).squeeze(-1)
