"""The condition of a conditional model: a label, or factors of variation.

Sohn et al., 2015, Learning Structured Output Representation using Deep Conditional Generative Models.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_train.batch import Shape

ConditionKind = Literal["label", "factors"]


class Condition(nn.Module):
    """Encodes y as one-hot blocks c(y), and passes it to the networks and the prior.

    The encoder receives an additional channel, a linear map of c. The decoder receives c with z: as additional elements
    of a vector, or as constant channels of a spatial latent. The prior is shifted and scaled by linear maps of c, which
    start at 0, so that training starts from the unconditional prior.

    Args:
        sizes: number of values of each column of y in use.
        data_shape: (C, H, W) of an image.
        latent_shape: shape of z.
        prior: whether the prior depends on y.
    """

    def __init__(self, sizes: tuple[int, ...], data_shape: Shape, latent_shape: Shape, prior: bool) -> None:
        super().__init__()
        self.sizes, self.size = sizes, sum(sizes)
        self.data_shape, self.latent_shape = data_shape, latent_shape
        (channels, height, width), (first, *rest) = data_shape, latent_shape
        self.encoder_shape: Shape = (channels + 1, height, width)
        """Shape of the encoder's input."""
        self.decoder_shape: Shape = (first + self.size, *rest)
        """Shape of the decoder's input."""
        self.channel = nn.Linear(self.size, height * width)
        self.prior = nn.Linear(self.size, 2 * torch.Size(latent_shape).numel()) if prior else None
        if self.prior is not None:
            nn.init.zeros_(self.prior.weight)
            nn.init.zeros_(self.prior.bias)

    def one_hot(self, y: Tensor | None) -> Tensor:
        """c(y) with shape `(B, size)` for y with shape `(B, F)`."""
        if y is None:
            raise ValueError("a conditional model needs y")
        return torch.cat([F.one_hot(y[:, i], size) for i, size in enumerate(self.sizes)], -1).to(self.channel.weight)

    def encoder_input(self, x: Tensor, y: Tensor | None) -> Tensor:
        """`x` with the additional channel."""
        _, *size = self.data_shape
        return torch.cat([x, self.channel(self.one_hot(y)).view(-1, 1, *size).to(x.dtype)], 1)

    def decoder_input(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Concatenates `z` `(*N, *latent_shape)` and c: `(*N, *decoder_shape)`."""
        event_ndim, (_, *size) = len(self.latent_shape), self.latent_shape
        blocks = self.one_hot(y).to(z.dtype)
        blocks = blocks.view(*blocks.shape, *(1 for _ in size))
        return torch.cat([z, blocks.expand(*z.shape[:-event_ndim], self.size, *size)], -event_ndim)

    def moments(self, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Shift and logarithm of the scale of the prior, each with shape `(B, *latent_shape)`."""
        assert self.prior is not None
        shift, log_scale = self.prior(self.one_hot(y)).float().chunk(2, -1)
        return shift.view(-1, *self.latent_shape), log_scale.view(-1, *self.latent_shape)

    def cycle(self, num: int, device: torch.device) -> Tensor:
        """Cycles through all combinations of values, (num, F) int64; the first column varies fastest."""
        number = torch.arange(num, device=device) % math.prod(self.sizes)
        return torch.stack(torch.unravel_index(number, self.sizes[::-1])[::-1], -1)


def build_condition(
    kind: ConditionKind | None, factor_sizes: Sequence[int], data_shape: Shape, latent_shape: Shape, prior: bool
) -> Condition | None:
    """The condition of a model; None for p(x).

    Args:
        kind: "label" for the first column of y, "factors" for all of them, None for no condition.
        factor_sizes: number of values of each column of y, the label first; empty for data without labels.
        data_shape: see `Condition`.
        latent_shape: see `Condition`.
        prior: see `Condition`.

    Raises:
        ValueError: the data has no labels.
    """
    if kind is None:
        return None
    if not factor_sizes:
        raise ValueError(f"condition={kind} needs labels, but the data has none")
    used = factor_sizes[:1] if kind == "label" else factor_sizes
    return Condition(tuple(used), data_shape, latent_shape, prior)
