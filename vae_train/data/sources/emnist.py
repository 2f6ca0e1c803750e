"""EMNIST: up to 814,255 handwritten letters and digits of 28x28 grey pixels, in six subsets (Cohen et al., 2017)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.sources.base import Arrays, PublishedSource, class_facts, open_idx

Subset = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]

# Published training images, published test images, classes. ("letters" as in the corrected release, not the paper.)
SIZES: dict[Subset, tuple[int, int, int]] = {
    "byclass": (697_932, 116_323, 62),
    "bymerge": (697_932, 116_323, 47),
    "balanced": (112_800, 18_800, 47),
    "letters": (124_800, 20_800, 26),
    "digits": (240_000, 40_000, 10),
    "mnist": (60_000, 10_000, 10),
}


@dataclass(frozen=True)
class EMNIST(PublishedSource):
    """EMNIST with upright images (they are transposed in the files) and labels that start at 0.

    As the paper suggests, there are as many validation images, from the published training images, as test images; a
    stored seed selects them.

    Args:
        root: folder that contains `EMNIST/raw`; missing files are downloaded to it.
        subset: "byclass" (62 classes: digits, capitals, small letters) and "bymerge" (47: capitals and small letters
            that look alike are merged) have all images; "balanced" has equally many of each of 47; "letters" has 26
            classes, capitals and small letters merged; "digits" and "mnist" ten.
        binarize: see `vae_train.data.sources.base.Binarize`.
    """

    subset: Subset

    @override
    def inspect(self) -> DataFacts:
        num_published, num_test, num_classes = SIZES[self.subset]
        return class_facts((1, 28, 28), num_published - num_test, num_classes, self.binarize)

    @override
    def open(self, train: bool) -> Arrays:
        stem = f"emnist-{self.subset}-{'train' if train else 'test'}"
        stored = open_idx("EMNIST", self.root, stem, {"train": train, "split": self.subset})
        return Arrays(stored.pixels.swapaxes(2, 3), stored.labels.astype(np.int64) - (self.subset == "letters"))
