"""Kuzushiji-MNIST: 70,000 cursive Japanese characters of 28x28 grey pixels in ten classes (Clanuwat et al., 2018)."""

from __future__ import annotations

from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.storage.published import open_idx, stored_split
from vae_train.data.storage.stored import ArrayImages, Binarize

SPLIT_SEED = 123


class KMNIST(Dataset):
    """Kuzushiji-MNIST, split into 50,000 / 10,000 / 10,000 images by a stored seed.

    Args:
        root: folder that has `KMNIST/raw`; the files are downloaded to it where they are missing.
        binarize: see `vae_train.data.sources.digits.Digits`.
    """

    def __init__(self, root: str, binarize: Binarize) -> None:
        super().__init__()
        self.root, self.binarize = root, binarize
        self.shape, self.classes = (1, 28, 28), 10
        self.levels = 256 if binarize == "none" else 2
        self.num_train = 50_000

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        train, test = (open_idx("KMNIST", self.root, train) for train in (True, False))
        return stored_split(train, test, self.num_train, SPLIT_SEED, 256, self.binarize)
