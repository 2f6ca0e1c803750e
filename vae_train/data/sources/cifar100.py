"""CIFAR-100: 60,000 colour images of 32x32 pixels in 100 classes, or 20 groups of five (Krizhevsky, 2009)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.storage.published import Arrays, open_cifar, stored_split
from vae_train.data.storage.stored import ArrayImages, Binarize

SPLIT_SEED = 123

# The group of every class, both in the alphabetical order of the files: apple is of group 4, fruit and vegetables.
# torchvision does not tell the groups, and nothing is unpickled here.
GROUPS = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


class CIFAR100(Dataset):
    """CIFAR-100, split into 45,000 / 5,000 / 10,000 images by a stored seed.

    Args:
        root: folder that has `cifar-100-python`; the files are downloaded to it where they are missing.
        labels: "fine" for the 100 classes, "coarse" for the 20 groups.
        binarize: see `vae_train.data.sources.digits.Digits`; each colour of a pixel is binarised by itself.
    """

    def __init__(self, root: str, labels: Literal["fine", "coarse"], binarize: Binarize) -> None:
        super().__init__()
        self.root, self.labels, self.binarize = root, labels, binarize
        self.shape, self.classes = (3, 32, 32), 100 if labels == "fine" else 20
        self.levels = 256 if binarize == "none" else 2
        self.num_train = 45_000

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        train, test = self._open(train=True), self._open(train=False)
        return stored_split(train, test, self.num_train, SPLIT_SEED, 256, self.binarize)

    def _open(self, train: bool) -> Arrays:
        part = open_cifar("CIFAR100", self.root, "cifar-100-python", train)
        return part if self.labels == "fine" else Arrays(part.pixels, np.asarray(GROUPS)[part.labels])
