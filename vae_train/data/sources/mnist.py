"""MNIST: 70,000 handwritten digits of 28x28 pixels (LeCun et al., 1998), in the protocols of the VAE literature."""

from __future__ import annotations

from typing import Literal

import numpy as np
from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.storage.published import images, joined, open_idx, training_images
from vae_train.data.storage.stored import ArrayImages, Binarize

BITS_SEED = 777

# How many of the 60,000 training images are for training and how many, the last ones, for validation.
SIZES = {"vamp": (50_000, 10_000), "iwae": (59_600, 400), "all": (60_000, 0), "everything": (70_000, 0)}


class MNIST(Dataset):
    """MNIST, cut as the papers cut it.

    Args:
        root: folder that has `MNIST/raw`; the files are downloaded to it where they are missing.
        protocol: "vamp" trains on the first 50,000 images, validates on the next 10,000 and draws validation and test
            bits once from NumPy's seed 777, validation first, which are the published bits (Tomczak & Welling, 2018);
            "iwae" trains on 59,600 and validates on 400 (Burda et al., 2016); "all" trains on 60,000 without
            validation; "everything" trains on all 70,000 and has no test split, as the Keras example does.
        binarize: see `vae_train.data.sources.digits.Digits`. The literature's "dynamic MNIST" is "dynamic".
    """

    def __init__(self, root: str, protocol: Literal["vamp", "iwae", "all", "everything"], binarize: Binarize) -> None:
        super().__init__()
        self.root, self.protocol, self.binarize = root, protocol, binarize
        self.shape, self.classes = (1, 28, 28), 10
        self.levels = 256 if binarize == "none" else 2
        self.num_train, self.num_valid = SIZES[protocol]

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        train, test = (open_idx("MNIST", self.root, train) for train in (True, False))
        if self.protocol == "everything":
            return {"train": training_images(joined(train, test), 256, self.binarize), "valid": None, "test": None}
        valid = train.take(slice(self.num_train, self.num_train + self.num_valid)) if self.num_valid else None
        rng = np.random.RandomState(BITS_SEED)
        return {
            "train": training_images(train.take(slice(self.num_train)), 256, self.binarize),
            "valid": images(valid, 256, self.binarize, rng),
            "test": images(test, 256, self.binarize, rng),
        }
