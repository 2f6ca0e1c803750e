"""Networks that tell two kinds of draws apart, for objectives that train a model against one. They return logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class VectorCritic(nn.Module):
    """A multi-layer perceptron on latents, with leaky rectifiers.

    Args:
        size: numbers in one draw.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([size, *hidden]):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Linear([size, *hidden][-1], 1))

    def forward(self, z: Tensor) -> Tensor:
        """Logits with shape `(*N)` of draws with shape `(*N, D)`."""
        weight = next(self.parameters())
        found: Tensor = self.net(z.to(weight.dtype))
        return found.squeeze(-1)


class PatchCritic(nn.Module):
    """Convolutions that judge every patch of an image on its own (Isola et al., 2017), for any size from 8 x 8 on.

    Two scales and group normalisation: batch statistics would make an image's logits a function of the others.

    Args:
        data_shape: (C, H, W) of an image.
        channels: of the first scale; the second and the last layer have twice and four times as many.

    Raises:
        ValueError: the image is too small to have patches.
    """

    def __init__(self, data_shape: Sequence[int], channels: int) -> None:
        super().__init__()
        colours, height, width = data_shape
        if min(height, width) < 8:
            raise ValueError(
                f"a critic of patches needs images of at least 8 x 8 pixels, and these are {height}x{width}"
            )
        self.net = nn.Sequential(
            nn.Conv2d(colours, channels, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False),
            nn.GroupNorm(1, 2 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * channels, 4 * channels, 3, 1, 1, bias=False),
            nn.GroupNorm(1, 4 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * channels, 1, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape `(N, P)` for P patches of images with shape `(N, C, H, W)`."""
        weight = next(self.parameters())
        found: Tensor = self.net(x.to(weight.dtype))
        return found.flatten(1)


def permute_dims(z: Tensor) -> Tensor:
    """Draws whose units belong to different images each: unit d of image i is that of image i - 1 - d.

    What a random permutation of the images in every unit is for, without drawing one: images come in random order, so
    that those a fixed distance apart are independent draws from q(z), and their units draws from its marginals. (Units
    further apart than the batch is large meet the same image again; batches are mostly larger.)

    Args:
        z: (K, B, D).
    """
    _, batch, size = z.shape
    images, units = torch.arange(batch, device=z.device), torch.arange(size, device=z.device)
    shift = 1 + units % max(batch - 1, 1)
    index = (images.unsqueeze(1) - shift) % batch
    return z.gather(1, index.expand_as(z))
