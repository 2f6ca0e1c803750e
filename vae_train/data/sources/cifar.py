"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32x32 pixels each, in ten and in 100 classes (Krizhevsky, 2009)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.sources.base import Arrays, PublishedSource, class_facts, open_torchvision

# The group of every class, both in the alphabetical order of the files: apple is in group 4, fruit and vegetables.
# torchvision does not read the groups, and nothing is unpickled here.
GROUPS = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


class CIFAR10(PublishedSource):
    """CIFAR-10, in `folder` within `root`, split into 45,000 / 5,000 / 10,000 images by a stored seed.

    Each colour of a pixel is binarised separately.
    """

    name: ClassVar[str] = "CIFAR10"
    """Class in `torchvision.datasets`."""
    folder: ClassVar[str] = "cifar-10-batches-py"

    @override
    def inspect(self) -> DataFacts:
        return class_facts((3, 32, 32), 45_000, 10, self.binarize)

    @override
    def open(self, train: bool) -> Arrays:
        part = open_torchvision(self.name, self.root, self.folder, {"train": train})
        return Arrays(part.data.transpose(0, 3, 1, 2), np.asarray(part.targets))


@dataclass(frozen=True)
class CIFAR100(CIFAR10):
    """CIFAR-100, split into 45,000 / 5,000 / 10,000 images by a stored seed.

    Args:
        root: folder that contains `cifar-100-python`; missing files are downloaded to it.
        binarize: see `vae_train.data.sources.base.Binarize`; each colour of a pixel is binarised separately.
        labels: "fine" for the 100 classes, "coarse" for the 20 groups.
    """

    labels: Literal["fine", "coarse"]
    name, folder = "CIFAR100", "cifar-100-python"

    @override
    def inspect(self) -> DataFacts:
        return class_facts((3, 32, 32), 45_000, 100 if self.labels == "fine" else 20, self.binarize)

    @override
    def open(self, train: bool) -> Arrays:
        part = super().open(train)
        return part if self.labels == "fine" else Arrays(part.pixels, np.asarray(GROUPS)[part.labels])
