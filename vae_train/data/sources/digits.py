"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels with 17 grey levels, installed with the library."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from typing_extensions import override

from vae_train.batch import SPLITS, DataFacts
from vae_train.data.sources.base import SPLIT_SEED, Arrays, Binarize, Contents, Source, binarized, class_facts
from vae_train.data.storage.stored import shuffled

BITS_SEED = 777
NUM_TRAIN, NUM_VALID = 1257, 180
LEVELS = 17


@dataclass(frozen=True)
class Digits(Source):
    """The test part of the Optical Recognition of Handwritten Digits data set (Alpaydin & Kaynak, 1998).

    Split into 1,257 / 180 / 360 images by a stored seed.

    Args:
        binarize: "none" keeps the 17 levels; "dynamic" samples each pixel as 0 or 1 with probability x, anew for every
            training batch and once for validation and test; "threshold" rounds at 1/2.
    """

    binarize: Binarize

    @override
    def inspect(self) -> DataFacts:
        return class_facts((1, 8, 8), NUM_TRAIN, 10, self.binarize, LEVELS)

    @override
    def read(self) -> Contents:
        pixels, labels = _load_digits()
        order = shuffled(len(pixels), SPLIT_SEED)
        arrays = Arrays(pixels[order].astype(np.uint8).reshape(-1, 1, 8, 8), labels[order])
        parts = np.split(np.arange(len(order)), [NUM_TRAIN, NUM_TRAIN + NUM_VALID])
        splits = {name: arrays.take(part) for name, part in zip(SPLITS, parts, strict=True)}
        return Contents(binarized(splits, LEVELS, self.binarize, BITS_SEED))


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Like `sklearn.datasets.load_digits`, but without importing the library, which takes ten times as long."""
    spec = find_spec("sklearn")
    path = Path(spec.origin or "").parent / "datasets/data/digits.csv.gz" if spec else None
    if path is None or not path.is_file():
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    return table[:, :-1], table[:, -1]
