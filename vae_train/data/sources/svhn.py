"""SVHN: house numbers, 32x32 pixels in colour; 73,257 images and 531,131 easier ones (Netzer et al., 2011)."""

from dataclasses import dataclass

from typing_extensions import override

from vae_train.batch import DataFacts, Split
from vae_train.data.sources.base import Arrays, PublishedSource, class_facts, cut_valid, joined, open_torchvision

NUM_TRAIN, NUM_EXTRA = 66_257, 531_131


@dataclass(frozen=True)
class SVHN(PublishedSource):
    """SVHN in the cropped format, split into 66,257 / 7,000 / 26,032 images by a stored seed.

    The label is the digit in the centre of the image. (In the files, the digit 0 is class 10.)

    Args:
        root: folder that contains `train_32x32.mat` and the other files; missing files are downloaded to it.
        extra: whether to also train on the 531,131 extra images, 597,388 in total; none is used for validation.
        binarize: see `vae_train.data.sources.base.Binarize`; each colour of a pixel is binarised separately.
    """

    extra: bool

    @override
    def inspect(self) -> DataFacts:
        return class_facts((3, 32, 32), NUM_TRAIN + self.extra * NUM_EXTRA, 10, self.binarize)

    @override
    def open(self, train: bool) -> Arrays:
        return self._open("train" if train else "test")

    @override
    def grey_splits(self) -> dict[Split, Arrays]:
        if not self.extra:
            return super().grey_splits()
        extra = self._open("extra")
        splits = cut_valid(self.open(train=True), self.open(train=False), self.inspect().num_train - len(extra.pixels))
        return splits | {"train": joined(splits["train"], extra)}

    def _open(self, part: str) -> Arrays:
        images = open_torchvision("SVHN", self.root, f"{part}_32x32.mat", {"split": part})
        return Arrays(images.data, images.labels)
