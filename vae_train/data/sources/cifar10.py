"""CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes (Krizhevsky, 2009)."""

from __future__ import annotations

from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.storage.published import open_cifar, stored_split
from vae_train.data.storage.stored import ArrayImages, Binarize

SPLIT_SEED = 123


class CIFAR10(Dataset):
    """CIFAR-10, split into 45,000 / 5,000 / 10,000 images by a stored seed.

    Args:
        root: folder that has `cifar-10-batches-py`; the files are downloaded to it where they are missing.
        binarize: see `vae_train.data.sources.digits.Digits`; each colour of a pixel is binarised by itself.
    """

    def __init__(self, root: str, binarize: Binarize) -> None:
        super().__init__()
        self.root, self.binarize = root, binarize
        self.shape, self.classes = (3, 32, 32), 10
        self.levels = 256 if binarize == "none" else 2
        self.num_train = 45_000

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        train, test = (open_cifar("CIFAR10", self.root, "cifar-10-batches-py", train) for train in (True, False))
        return stored_split(train, test, self.num_train, SPLIT_SEED, 256, self.binarize)
