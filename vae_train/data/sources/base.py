"""What published data sets in the formats of MNIST and CIFAR have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from typing_extensions import override

from vae_train.data.dataset import Contents, Source
from vae_train.data.storage.published import Arrays, stored_split
from vae_train.data.storage.torchvision_files import open_cifar, open_idx

SPLIT_SEED = 123
"""Decides which published training images are validation images."""


class PublishedSource(Source):
    """Images of 256 levels, published as a training and a test part; validation images are cut from the first."""

    @abstractmethod
    def open(self, train: bool) -> Arrays:
        """Reads the training or the test part.

        Raises:
            UsageError: it is missing and cannot be downloaded, or cannot be read.
        """

    @override
    def read(self) -> Contents:
        train, test = self.open(train=True), self.open(train=False)
        return Contents(stored_split(train, test, self.inspect().num_train, self.binarization, seed=SPLIT_SEED))


class IdxSource(PublishedSource):
    """Grey images of 28x28 pixels in MNIST's format, in the folder `<name>/raw` of `root`."""

    root: str
    name: ClassVar[str]
    """Class in `torchvision.datasets`."""

    @override
    def open(self, train: bool) -> Arrays:
        return open_idx(self.name, self.root, train)


class CifarSource(PublishedSource):
    """Colour images of 32x32 pixels in CIFAR's format, in the folder `folder` of `root`."""

    root: str
    name: ClassVar[str]
    """Class in `torchvision.datasets`."""
    folder: ClassVar[str]

    @override
    def open(self, train: bool) -> Arrays:
        return open_cifar(self.name, self.root, self.folder, train)
