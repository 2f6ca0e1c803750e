"""What published data sets in the formats of MNIST and CIFAR have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.dataset import Contents, Source
from vae_train.data.storage.bits import Binarize
from vae_train.data.storage.published import Arrays, class_facts, stored_split
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


@dataclass(frozen=True)
class IdxSource(PublishedSource):
    """Grey images of 28x28 pixels in ten classes and in MNIST's format, in the folder `<name>/raw` of `root`.

    Args:
        root: the folder; missing files are downloaded to it.
        binarize: see `vae_train.data.storage.bits.Binarize`.
    """

    root: str
    binarize: Binarize
    name: ClassVar[str]
    """Class in `torchvision.datasets`."""
    num_train: ClassVar[int]

    @override
    def inspect(self) -> DataFacts:
        return class_facts((1, 28, 28), self.num_train, 10, self.binarize)

    @override
    def open(self, train: bool) -> Arrays:
        return open_idx(self.name, self.root, train)


@dataclass(frozen=True)
class CifarSource(PublishedSource):
    """Colour images of 32x32 pixels in CIFAR's format, split into 45,000 / 5,000 / 10,000 images.

    Args:
        root: folder that contains `folder`; missing files are downloaded to it.
        binarize: see `vae_train.data.storage.bits.Binarize`; each colour of a pixel is binarised separately.
    """

    root: str
    binarize: Binarize
    name: ClassVar[str]
    """Class in `torchvision.datasets`."""
    folder: ClassVar[str]
    num_classes: ClassVar[int]

    @override
    def inspect(self) -> DataFacts:
        return class_facts((3, 32, 32), 45_000, self.num_classes, self.binarize)

    @override
    def open(self, train: bool) -> Arrays:
        return open_cifar(self.name, self.root, self.folder, train)
