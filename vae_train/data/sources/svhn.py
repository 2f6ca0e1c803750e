"""SVHN: digits of house numbers, 32x32 colour pixels: 73,257 and 531,131 easier ones (Netzer et al., 2011)."""

from dataclasses import dataclass

from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.dataset import Binarize, Contents, Source
from vae_train.data.sources.base import SPLIT_SEED, Arrays, binarized, class_facts, cut_valid, joined, open_torchvision

NUM_TRAIN, NUM_EXTRA = 66_257, 531_131


@dataclass(frozen=True)
class SVHN(Source):
    """SVHN in the cropped format, split into 66,257 / 7,000 / 26,032 images by a stored seed.

    A label is the digit in the middle of the image. (The files call the digit 0 class 10.)

    Args:
        root: folder that contains `train_32x32.mat` and the other files; missing files are downloaded to it.
        extra: whether to train on the 531,131 further images as well, 597,388 in all; none of them is validated on.
        binarize: see `vae_train.data.dataset.Binarize`; each colour of a pixel is binarised separately.
    """

    root: str
    extra: bool
    binarize: Binarize

    @override
    def inspect(self) -> DataFacts:
        return class_facts((3, 32, 32), NUM_TRAIN + self.extra * NUM_EXTRA, 10, self.binarize)

    @override
    def read(self) -> Contents:
        extra, num_train = self._open("extra") if self.extra else None, self.inspect().num_train
        own = num_train if extra is None else num_train - len(extra.pixels)
        splits = cut_valid(self._open("train"), self._open("test"), own)
        if extra is not None:
            splits["train"] = joined(splits["train"], extra)
        return Contents(binarized(splits, 256, self.binarize, SPLIT_SEED))

    def _open(self, split: str) -> Arrays:
        part = open_torchvision("SVHN", self.root, f"{split}_32x32.mat", {"split": split})
        return Arrays(part.data, part.labels)
