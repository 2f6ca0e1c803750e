"""SVHN: digits of house numbers, 32x32 colour pixels: 73,257 and 531,131 easier ones (Netzer et al., 2011)."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.dataset import Contents, Source
from vae_train.data.storage.bits import Binarize
from vae_train.data.storage.published import Arrays, class_facts, stored_split
from vae_train.data.storage.torchvision_files import open_torchvision

SPLIT_SEED = 123

NUM_TRAIN, NUM_EXTRA = 66_257, 531_131


@dataclass(frozen=True)
class SVHN(Source):
    """SVHN in the cropped format, split into 66,257 / 7,000 / 26,032 images by a stored seed.

    A label is the digit in the middle of the image. (The files call the digit 0 class 10.)

    Args:
        root: folder that contains `train_32x32.mat` and the other files; missing files are downloaded to it.
        extra: whether to train on the 531,131 further images as well, 597,388 in all; none of them is validated on.
        binarize: see `vae_train.data.storage.bits.Binarize`; each colour of a pixel is binarised separately.
    """

    root: str
    extra: bool
    binarize: Binarize

    @override
    def inspect(self) -> DataFacts:
        return class_facts((3, 32, 32), NUM_TRAIN + self.extra * NUM_EXTRA, 10, self.binarize)

    @override
    def read(self) -> Contents:
        train, test = self._open("train"), self._open("test")
        extra = self._open("extra") if self.extra else None
        num_train = self.inspect().num_train
        return Contents(stored_split(train, test, num_train, self.binarize, seed=SPLIT_SEED, extra=extra))

    def _open(self, split: str) -> Arrays:
        part = open_torchvision("SVHN", self.root, f"{split}_32x32.mat", {"split": split})
        return Arrays(part.data, part.labels)
