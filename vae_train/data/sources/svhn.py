"""SVHN: digits of house numbers, 32x32 colour pixels: 73,257 and 531,131 easier ones (Netzer et al., 2011)."""

from __future__ import annotations

from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.storage.published import Arrays, open_torchvision, stored_split
from vae_train.data.storage.stored import ArrayImages, Binarize

SPLIT_SEED = 123

NUM_TRAIN, NUM_EXTRA = 66_257, 531_131


class SVHN(Dataset):
    """SVHN in the cropped format, split into 66,257 / 7,000 / 26,032 images by a stored seed.

    A label is the digit in the middle of the image. (The files call the digit 0 class 10.)

    Args:
        root: folder that has `train_32x32.mat` and its like; they are downloaded to it where they are missing.
        extra: whether the 531,131 further images are trained on too, of which none validates: 597,388 in all.
        binarize: see `vae_train.data.sources.digits.Digits`; each colour of a pixel is binarised by itself.
    """

    def __init__(self, root: str, extra: bool, binarize: Binarize) -> None:
        super().__init__()
        self.root, self.extra, self.binarize = root, extra, binarize
        self.shape, self.classes = (3, 32, 32), 10
        self.levels = 256 if binarize == "none" else 2
        self.num_train = NUM_TRAIN + (NUM_EXTRA if extra else 0)

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        train, test = self._open("train"), self._open("test")
        extra = self._open("extra") if self.extra else None
        return stored_split(train, test, self.num_train, SPLIT_SEED, 256, self.binarize, extra)

    def _open(self, split: str) -> Arrays:
        part = open_torchvision("SVHN", self.root, f"{split}_32x32.mat", {"split": split})
        return Arrays(part.data, part.labels)
