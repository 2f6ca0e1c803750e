"""Critics: networks that separate two kinds of samples and return logits."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

MAX_WIDENING = 8
"""Largest number of channels of a patch critic, relative to its first layer."""


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
    """Convolutions that score every patch of an image separately, with group normalisation.

    Isola et al., 2017, Image-to-Image Translation with Conditional Adversarial Networks, arXiv:1611.07004, section
    3.2.2. With their batch normalisation, an image's logits would depend on the others.

    Args:
        data_shape: (C, H, W) of an image.
        channels: channels of the first layer, doubled at every further one, up to eight times as many.
        halvings: number of layers with stride 2.
        kernel: side of the kernels of the last two layers, which have stride 1; 4 in the paper.

    Raises:
        ValueError: the image is too small to have patches.
    """

    def __init__(self, data_shape: Sequence[int], channels: int, halvings: int = 2, kernel: int = 3) -> None:
        super().__init__()
        colors, height, width = data_shape
        least = smallest_side(halvings, kernel)
        if min(height, width) < least:
            raise ValueError(f"a patch critic needs images of at least {least}x{least} pixels, not {height}x{width}")
        layers: list[nn.Module] = [nn.Conv2d(colors, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        widths = [channels * min(2**layer, MAX_WIDENING) for layer in range(halvings + 1)]
        for layer, (inputs, outputs) in enumerate(pairwise(widths), 2):
            size, stride = (4, 2) if layer <= halvings else (kernel, 1)
            layers += [nn.Conv2d(inputs, outputs, size, stride, 1, bias=False), nn.GroupNorm(1, outputs)]
            layers.append(nn.LeakyReLU(0.2))
        self.net = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, kernel, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits with shape `(N, P)` for P patches of images with shape `(N, C, H, W)`."""
        logits: Tensor = self.net(x.to(next(self.parameters()).dtype))
        return logits.flatten(1)


def smallest_side(halvings: int, kernel: int) -> int:
    """The smallest side of images whose patches a `PatchCritic` scores, in pixels."""
    return max(8, 2**halvings * (2 * kernel - 5))  # the last two layers shrink an image by kernel - 3 pixels each


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
