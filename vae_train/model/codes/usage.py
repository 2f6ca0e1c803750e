"""How many codes are in use, and how evenly."""

from typing import NamedTuple

import torch
from torch import Tensor


class CodeUsage(NamedTuple):
    """The use of Q codebooks with K codes each."""

    used: int
    """Number of codes that occur, in all codebooks."""
    total: int
    """Q K."""
    num_codebooks: int
    """Q."""
    perplexity: float
    """exp of the entropy in nats of how often codes occur, the geometric mean over codebooks: K if all are equally
    frequent."""


def count_codes(codes: Tensor, num_codebooks: int, num_codes: int) -> Tensor:
    """How often every code occurs: float32 `(Q, K)`, exact up to 2^24.

    Args:
        codes: (N, *code_shape) int64, see `vae_train.distributions.codes.Codebook`.
        num_codebooks: Q.
        num_codes: K.
    """
    columns = codes.reshape(-1, num_codebooks).T
    zeros = torch.zeros(num_codebooks, num_codes, device=codes.device)
    return zeros.scatter_add(-1, columns, torch.ones_like(columns, dtype=zeros.dtype))


def usage_of(counts: Tensor) -> CodeUsage:
    """The use of codes that occur `counts` times, `(Q, K)`, or proportionally often."""
    counts = counts.cpu().double()
    shares = counts / counts.sum(-1, keepdim=True).clamp(min=torch.finfo(counts.dtype).tiny)
    entropy = -torch.xlogy(shares, shares).sum(-1).mean()
    return CodeUsage(int((counts > 0).sum()), counts.numel(), len(counts), float(entropy.exp()))
