"""EMNIST: up to 814,255 handwritten letters and digits of 28x28 grey pixels, in six subsets (Cohen et al., 2017)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.storage.published import Arrays, open_idx, stored_split
from vae_train.data.storage.stored import ArrayImages, Binarize

SPLIT_SEED = 123

Subset = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]

# Published training images, published test images, classes. ("letters" is the corrected release's, not the paper's.)
FACTS: dict[Subset, tuple[int, int, int]] = {
    "byclass": (697_932, 116_323, 62),
    "bymerge": (697_932, 116_323, 47),
    "balanced": (112_800, 18_800, 47),
    "letters": (124_800, 20_800, 26),
    "digits": (240_000, 40_000, 10),
    "mnist": (60_000, 10_000, 10),
}


class EMNIST(Dataset):
    """EMNIST with upright images (the files have them transposed) and labels that start at 0.

    Of the published training images as many as there are test images validate, as the paper suggests; a stored seed
    decides which.

    Args:
        root: folder that has `EMNIST/raw`; the files are downloaded to it where they are missing.
        subset: "byclass" (62 classes: digits, capitals, small letters) and "bymerge" (47: capitals and small letters
            that look alike are one) have all images; "balanced" has as many of each of the 47; "letters" 26 classes,
            capitals and small letters merged; "digits" and "mnist" ten.
        binarize: see `vae_train.data.sources.digits.Digits`.
    """

    def __init__(self, root: str, subset: Subset, binarize: Binarize) -> None:
        super().__init__()
        self.root, self.subset, self.binarize = root, subset, binarize
        published, tested, self.classes = FACTS[subset]
        self.shape = (1, 28, 28)
        self.levels = 256 if binarize == "none" else 2
        self.num_train = published - tested

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        train, test = self._open(train=True), self._open(train=False)
        return stored_split(train, test, self.num_train, SPLIT_SEED, 256, self.binarize)

    def _open(self, train: bool) -> Arrays:
        stored = open_idx("EMNIST", self.root, train, self.subset)
        first = 1 if self.subset == "letters" else 0
        return Arrays(stored.pixels.swapaxes(2, 3), stored.labels.astype(np.int64) - first)
