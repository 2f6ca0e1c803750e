"""Critics: networks that separate two kinds of samples and return logits."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class VectorCritic(nn.Module):
    """A multi-layer perceptron on latents, with leaky ReLUs.

    Args:
        size: number of elements of a sample.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([size, *hidden]):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Linear([size, *hidden][-1], 1))

    def forward(self, z: Tensor) -> Tensor:
        """Logits with shape `(*N)` of samples with shape `(*N, D)`."""
        logits: Tensor = self.net(z.to(next(self.parameters()).dtype))
        return logits.squeeze(-1)


class PatchCritic(nn.Module):
    """Convolutions that score every patch of an image separately (Isola et al., 2017), for images of at least 8 x 8.

    It has two scales and group normalisation; with batch normalisation, an image's logits would depend on the others.

    Args:
        data_shape: (C, H, W) of an image.
        channels: channels of the first scale; the second and the last layer have twice and four times as many.

    Raises:
        ValueError: the image is too small to have patches.
    """

    def __init__(self, data_shape: Sequence[int], channels: int) -> None:
        super().__init__()
        colors, height, width = data_shape
        if min(height, width) < 8:
            raise ValueError(f"a patch critic needs images of at least 8x8 pixels, not {height}x{width}")
        self.net = nn.Sequential(
            nn.Conv2d(colors, channels, 4, 2, 1),
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
        logits: Tensor = self.net(x.to(next(self.parameters()).dtype))
        return logits.flatten(1)


def permute_dims(z: Tensor) -> Tensor:
    """Combines dimensions of different images: dimension d of image i is taken from image i - 1 - d.

    This replaces a random permutation of the images in every dimension (Kim & Mnih, 2018, algorithm 1) without
    random numbers: images are in random order, so those a fixed distance apart are independent samples of q(z), and
    their dimensions samples of its marginals. (With more dimensions than images, shifts repeat.)

        >>> permute_dims(torch.tensor([[[0, 10], [1, 11], [2, 12]]]))
        tensor([[[ 2, 11],
                 [ 0, 12],
                 [ 1, 10]]])

    Args:
        z: (K, B, D).
    """
    _, batch, size = z.shape
    images, dims = torch.arange(batch, device=z.device), torch.arange(size, device=z.device)
    shift = 1 + dims % max(batch - 1, 1)
    index = (images.unsqueeze(1) - shift) % batch
    return z.gather(1, index.expand_as(z))
