"""What the implementations train: a network, a batch size and the images.

This module imports nothing of vae_train, since the other implementations run without it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

MNIST_SHAPE, NUM_TEST_IMAGES = (1, 28, 28), 10_000


@dataclass(frozen=True)
class Workload:
    """A training that every implementation can do.

    Images with one channel are grey targets of a Bernoulli likelihood. Images with three channels have half the squared
    error as their loss (a normal likelihood with sigma = 1). The optimiser is Adam with a learning rate of 1e-3.
    """

    network: Literal["mlp", "conv"]
    """One hidden layer in encoder and decoder, or the layers of conf/model/conv.yaml."""
    shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    batch_size: int
    width: int = 400
    """Units of the hidden layers of an mlp."""

    @property
    def latent_dim(self) -> int:
        """Dimensions of z."""
        return 20 if self.network == "mlp" else 32

    @property
    def binary(self) -> bool:
        """Whether the likelihood is Bernoulli."""
        return self.shape[0] == 1

    @property
    def title(self) -> str:
        """Description for tables."""
        c, h, w = self.shape
        size = f"{c * h * w}-{self.width}-{self.latent_dim}" if self.network == "mlp" else f"{h}x{w}x{c}"
        return f"{self.network} {size}, batch {self.batch_size}"


@dataclass(frozen=True)
class Settings:
    """What all implementations of a comparison share."""

    workload: Workload
    num_images: int
    """Training images."""
    device: str = "cpu"
    threads: int = 1

    def as_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Settings:
        """Settings from what `as_json` returned."""
        workload = values["workload"]
        return cls(**{**values, "workload": Workload(**{**workload, "shape": tuple(workload["shape"])})})


class ImageSet(NamedTuple):
    """Images in memory."""

    pixels: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N,) int64."""
    description: str
    mnist: Any = None
    """The same images as a data set of torchvision, for MNIST."""

    def as_dataset(self) -> torch.utils.data.Dataset:
        """A data set as tutorials use it: pairs of a (C, H, W) float32 tensor and a label."""
        return self.mnist or PixelDataset(self.pixels)


class PixelDataset(torch.utils.data.Dataset):
    """Does for every image what torchvision's data sets do.

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


def load_images(shape: tuple[int, int, int], count: int, train: bool = True) -> ImageSet:
    """Loads the first `count` images of MNIST; random images for other shapes, or if MNIST is missing.

    Args:
        shape: (C, H, W).
        count: number of images.
        train: whether images come from the training split rather than from the test split.
    """
    if shape == MNIST_SHAPE:
        from torchvision.datasets import MNIST
        from torchvision.transforms import ToTensor

        try:
            mnist = MNIST(os.environ.get("VAE_DATA", "data"), train=train, transform=ToTensor())
        except RuntimeError:
            pass  # torchvision's error for missing files
        else:
            mnist.data, mnist.targets = mnist.data[:count], mnist.targets[:count]
            return ImageSet(mnist.data[:, None].contiguous(), mnist.targets, "MNIST", mnist)
    rng = torch.Generator().manual_seed(0 if train else 1)
    pixels = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=rng)
    description = "random images" + (", since MNIST was not found (set VAE_DATA)" if shape == MNIST_SHAPE else "")
    return ImageSet(pixels, torch.zeros(count, dtype=torch.int64), description)
