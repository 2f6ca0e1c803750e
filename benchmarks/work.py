"""What the contenders train: a network, its images and a batch size, and where the images come from.

Nothing of vae_train is imported here: the other contenders run without it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

MNIST_SHAPE, NUM_TEST = (1, 28, 28), 10_000


@dataclass(frozen=True)
class Work:
    """A training that every contender can do.

    One channel has grey targets under a Bernoulli likelihood, three have squared error / 2 (a normal distribution with
    sigma = 1). Optimised by Adam with learning rate 1e-3.
    """

    network: Literal["mlp", "conv"]
    """One hidden layer on both sides, or the layers of conf/model/conv.yaml."""
    shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    batch_size: int
    width: int = 400
    """Units of the hidden layers of an mlp."""
    latent: int | None = None
    """Dimensions of z; None for the usual ones of the network."""

    @property
    def latent_dim(self) -> int:
        """Dimensions of z."""
        return self.latent or (20 if self.network == "mlp" else 32)

    @property
    def binary(self) -> bool:
        """Whether the likelihood is Bernoulli."""
        return self.shape[0] == 1

    @property
    def title(self) -> str:
        """What it is, for people."""
        c, h, w = self.shape
        size = f"{c * h * w}-{self.width}-{self.latent_dim}" if self.network == "mlp" else f"{h}x{w}x{c}"
        return f"{self.network} {size}, batch {self.batch_size}"

    @property
    def idle(self) -> Work:
        """The same operations on next to nothing: as many images, of one pixel, layers of one unit, one z."""
        return replace(self, shape=(1, 1, 1), width=1, latent=1)

    def as_json(self) -> dict[str, Any]:
        """The inverse of `read`."""
        return asdict(self)

    @classmethod
    def read(cls, values: dict[str, Any]) -> Work:
        """From what a line of JSON said."""
        return cls(**{**values, "shape": tuple(values["shape"])})


@dataclass(frozen=True)
class Setting:
    """What all contenders of one comparison share."""

    work: Work
    images: int
    """Training images."""
    device: str = "cpu"
    threads: int = 1


class Source(NamedTuple):
    """Images in memory."""

    pixels: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N, 1) int64."""
    about: str
    """What the images are."""
    mnist: Any = None
    """The same images as torchvision gives them, where they are from there."""

    def pictures(self) -> torch.utils.data.Dataset:
        """As tutorials open them: one (C, H, W) float32 tensor and one label at a time."""
        return self.mnist or Pictures(self.pixels)


class Pictures(torch.utils.data.Dataset):
    """What torchvision's data sets do for every image, for images that are not from there.

    Args:
        pixels: uint8 tensor with shape `(N, C, H, W)`.
    """

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        from PIL.Image import fromarray
        from torchvision.transforms import ToTensor

        self.pixels, self.open, self.transform = pixels.permute(0, 2, 3, 1).contiguous(), fromarray, ToTensor()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.pixels[index].numpy()
        return self.transform(self.open(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)), 0


def load(shape: tuple[int, int, int], count: int, train: bool = True) -> Source:
    """The first `count` images of MNIST, or as many random ones of another shape or where MNIST is not there.

    Args:
        shape: (C, H, W).
        count: how many images.
        train: the training or the test part.
    """
    if shape == MNIST_SHAPE:
        from torchvision.datasets import MNIST
        from torchvision.transforms import ToTensor

        try:
            mnist = MNIST(os.environ.get("VAE_DATA", "data"), train=train, transform=ToTensor())
        except RuntimeError:
            pass  # torchvision's way to say that the files are not there
        else:
            mnist.data, mnist.targets = mnist.data[:count], mnist.targets[:count]
            return Source(mnist.data[:, None].contiguous(), mnist.targets[:, None], "MNIST", mnist)
    rng = torch.Generator().manual_seed(0 if train else 1)
    pixels = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=rng)
    about = "random images" + (", since MNIST is not here (set VAE_DATA)" if shape == MNIST_SHAPE else "")
    return Source(pixels, torch.zeros(count, 1, dtype=torch.int64), about)
