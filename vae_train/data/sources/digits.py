"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels with 17 grey levels, installed with the library."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.storage.published import Arrays, images, training_images
from vae_train.data.storage.splits import shuffled
from vae_train.data.storage.stored import ArrayImages, Binarize

SPLIT_SEED = 123
BITS_SEED = 777
SIZES = {"train": 1257, "valid": 180, "test": 360}


class Digits(Dataset):
    """The test part of the Optical Recognition of Handwritten Digits data set (Alpaydin & Kaynak, 1998).

    Split into 1,257 / 180 / 360 images by a stored seed.

    Args:
        binarize: "none" keeps the 17 levels; "dynamic" draws each pixel as 0 or 1 with probability x, afresh for every
            training batch and once for validation and test; "threshold" cuts at ½.
    """

    def __init__(self, binarize: Binarize) -> None:
        super().__init__()
        self.binarize = binarize
        self.shape, self.classes = (1, 8, 8), 10
        self.levels = 17 if binarize == "none" else 2
        self.num_train = SIZES["train"]

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        pixels, labels = _load_digits()
        order = shuffled(len(pixels), SPLIT_SEED)
        arrays = Arrays(pixels[order].astype(np.uint8).reshape(-1, 1, 8, 8), labels[order])
        first, second = SIZES["train"], SIZES["train"] + SIZES["valid"]
        rng = np.random.RandomState(BITS_SEED)
        return {
            "train": training_images(arrays.take(slice(first)), 17, self.binarize),
            "valid": images(arrays.take(slice(first, second)), 17, self.binarize, rng),
            "test": images(arrays.take(slice(second, None)), 17, self.binarize, rng),
        }


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """`sklearn.datasets.load_digits`, from the library's file: importing the library takes ten times as long."""
    found = find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets/data/digits.csv.gz" if found else None
    if path is None or not path.is_file():
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        return pixels, labels
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    return table[:, :-1], table[:, -1]
