"""Finite scalar quantisation: every number of a code is rounded to one of a few levels.

Mentzer et al., 2023, Finite Scalar Quantization: VQ-VAE Made Simple, arXiv:2309.15505, section 3.1 and appendix A.1.
"""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.codes import QuantizedPoint
from vae_train.model.posterior.base import CodePosterior
from vae_train.util.ranges import PositiveInt

MAX_CODES = 2**20
"""Largest number of codes."""

MARGIN = 1e-3
"""The encoder's output is squashed to a range wider by this fraction, so that all levels can be reached."""


class FiniteScalar(CodePosterior):
    """Numbers on a grid in [-1, 1], with a straight-through gradient; the parameters are the numbers before squashing.

    The codebook is the product of the levels and has no parameters. Unlike that of `vq` it cannot collapse, and there
    is no commitment loss.

    Args:
        event_shape: shape of z: (C,) for one code, (C, H, W) for H x W codes, of C numbers each.
        levels: number of values of each of the C numbers; one number for all, or a list.
    """

    collapse_advice = "train longer, or use fewer levels (model.posterior.levels)"

    def __init__(self, event_shape: Shape, levels: PositiveInt | list[PositiveInt]) -> None:
        channels, *places = event_shape
        sizes = [levels] * channels if isinstance(levels, int) else list(levels)
        if len(sizes) != channels:
            raise ValueError(
                f"levels has {len(sizes)} entries for {channels} numbers; use {_shape(len(sizes), places)}"
            )
        if min(sizes) < 2:
            raise ValueError("every number needs at least 2 levels")
        num_codes = math.prod(sizes)
        if num_codes > MAX_CODES:
            raise ValueError(
                f"{channels} numbers of these levels are {num_codes:,} codes, more than {MAX_CODES:,}; "
                f"use for instance model.posterior.levels=[8,5,5,5] with {_shape(4, places)}"
            )
        super().__init__(event_shape, num_codes)
        # Floating-point numbers, which a moving average of the weights can average; all are exact.
        self.levels = nn.Buffer(torch.tensor(sizes, dtype=torch.float32), persistent=False)
        basis = [math.prod(sizes[:i]) for i in range(channels)]
        self.basis = nn.Buffer(torch.tensor(basis, dtype=torch.float32), persistent=False)

    @override
    def embed(self, indices: Tensor) -> Tensor:
        digits = indices.unsqueeze(-1) // self.basis.long() % self.levels.long()
        return self.from_vectors(self._values(digits.to(self.levels.dtype)))

    @override
    def indices(self, z: Tensor) -> Tensor:
        half = self.levels // 2
        digits = (promote(self.to_vectors(z)) * half).round() + half
        return self._numbers(digits.clamp(torch.zeros_like(half), self.levels - 1))

    @override
    def forward(self, parameters: Tensor) -> QuantizedPoint:
        squashed = self._squashed(self.to_vectors(promote(parameters)))
        digits = squashed.detach().round()
        values = self._values(digits) + (squashed - squashed.detach()) / (self.levels // 2)
        return QuantizedPoint(self.from_vectors(values), self._numbers(digits), len(self.event_shape))

    def _numbers(self, digits: Tensor) -> Tensor:
        """The indices of codes from the digits of their numbers."""
        return (digits.long() * self.basis.long()).sum(-1)

    def _values(self, digits: Tensor) -> Tensor:
        """Digits 0, 1, …, L - 1 as numbers in [-1, 1]; one of them is 0."""
        half = self.levels // 2
        return (digits - half) / half

    def _squashed(self, x: Tensor) -> Tensor:
        """Maps R to (-½, L - ½), which rounds to the digits; 0 is mapped to the digit L // 2 of the number 0."""
        scale = (self.levels - 1) * (1 + MARGIN) / 2
        offset = 0.5 * (1 - self.levels % 2)
        return torch.tanh(x + torch.atanh(offset / scale)) * scale - offset + self.levels // 2


def _shape(channels: int, places: list[int]) -> str:
    """The setting of a latent shape with codes of `channels` numbers."""
    return f"latent_shape=[{','.join(map(str, [channels, *places]))}]" if places else f"latent_dim={channels}"
