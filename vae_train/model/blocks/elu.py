"""ELU with a fast forward pass on CPUs."""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override


class FastELU(nn.Module):
    """max(x, exp(min(x, 0)) - 1): the exponential linear unit (Clevert et al., 2016, arXiv:1511.07289, eq. 15).

    PyTorch's own calls expm1, which takes seven times as long on CPUs: a third of the training of a small residual
    network. Results differ by rounding.
    """

    @override
    def forward(self, h: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return torch.where(h > 0, h, h.clamp_max(0).exp() - 1)
        return _ELU.apply(h)  # type: ignore[no-any-return]


class _ELU(torch.autograd.Function):
    @staticmethod
    def forward(h: Tensor) -> Tensor:
        out = h.clamp_max(0).exp_().sub_(1)
        return torch.maximum(h, out, out=out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.elu_backward(gradient, 1, 1, 1, True, out)  # type: ignore[no-any-return]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], h: Tensor) -> tuple[Tensor, int]:
        return _ELU.apply(h), in_dims[0]
