"""What a conditional model is told beside the image: a label, or factors of variation (Sohn et al., 2015)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, ...]


class Condition(nn.Module):
    """y as one-hot blocks c(y), and the ways in which networks and the prior see it.

    The encoder sees one more channel, a linear map of c; the decoder sees c beside z; the prior is shifted and scaled
    by linear maps of c, which start at 0, so that training starts from the unconditional prior.

    Args:
        sizes: number of values of each column of y that is used, from the first.
        data_shape: (C, H, W) of an image.
        latent_shape: shape of z.
        prior: whether the prior sees it.
    """

    def __init__(self, sizes: tuple[int, ...], data_shape: Shape, latent_shape: Shape, prior: bool) -> None:
        super().__init__()
        self.sizes, self.size = sizes, sum(sizes)
        self.data_shape, self.latent_shape = data_shape, latent_shape
        _, height, width = data_shape
        self.channel = nn.Linear(self.size, height * width)
        self.prior = nn.Linear(self.size, 2 * torch.Size(latent_shape).numel()) if prior else None
        if self.prior is not None:
            nn.init.zeros_(self.prior.weight)
            nn.init.zeros_(self.prior.bias)

    @property
    def image_shape(self) -> Shape:
        """What the encoder sees."""
        channels, height, width = self.data_shape
        return (channels + 1, height, width)

    @property
    def code_shape(self) -> Shape:
        """What the decoder sees."""
        return (torch.Size(self.latent_shape).numel() + self.size,)

    def blocks(self, y: Tensor | None) -> Tensor:
        """c(y) with shape `(B, size)` for y with shape `(B, F)`."""
        if y is None:
            raise ValueError("a conditional model needs y")
        return torch.cat([F.one_hot(y[:, i], size) for i, size in enumerate(self.sizes)], -1).to(self.channel.weight)

    def with_image(self, x: Tensor, y: Tensor | None) -> Tensor:
        """`x` with one more channel."""
        _, *size = self.data_shape
        return torch.cat([x, self.channel(self.blocks(y)).view(-1, 1, *size).to(x.dtype)], 1)

    def with_code(self, z: Tensor, y: Tensor | None) -> Tensor:
        """`z`, with shape `(*N, *latent_shape)`, flat and beside c: `(*N, *code_shape)`."""
        flat = z.flatten(z.dim() - len(self.latent_shape))
        blocks = self.blocks(y).to(flat.dtype)
        return torch.cat([flat, blocks.expand(*flat.shape[:-1], self.size)], -1)

    def moments(self, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Shift and logarithm of the scale of the prior, each with shape `(B, *latent_shape)`."""
        assert self.prior is not None
        shift, log_scale = self.prior(self.blocks(y)).float().chunk(2, -1)
        return shift.view(-1, *self.latent_shape), log_scale.view(-1, *self.latent_shape)

    def in_turn(self, num: int, device: torch.device) -> Tensor:
        """(num, F) int64: the values of the first column one after the other, then those of the next, and so on."""
        number = torch.arange(num, device=device)
        columns = []
        for size in self.sizes:
            columns.append(number % size)
            number = number // size
        return torch.stack(columns, -1)
