"""Published data sets in memory: splits, binarisation, and facts about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vae_train.batch import DataFacts, Factor, Shape
from vae_train.data.storage.bits import Binarize, binarized_levels, random_bits
from vae_train.data.storage.splits import shuffled
from vae_train.data.storage.stored import Splits, StoredImages
from vae_train.data.storage.stores import TensorStore


@dataclass(frozen=True)
class Arrays:
    """Grey values and labels of one split, before binarisation.

    Args:
        pixels: uint8 with shape `(N, C, H, W)`.
        labels: class numbers with shape `(N,)`, or factors of variation `(N, F)`.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def take(self, index: Any) -> Arrays:
        """The images at `index`, a slice or an array of numbers."""
        return Arrays(self.pixels[index], self.labels[index])


def class_facts(
    data_shape: Shape, num_train: int, num_classes: int, binarize: Binarize, levels: int = 256
) -> DataFacts:
    """Facts about images with one label each."""
    return DataFacts(data_shape, binarized_levels(levels, binarize), num_train, (Factor("class", num_classes),))


def training_images(split: Arrays, levels: int, binarize: Binarize) -> StoredImages:
    """Images for training: under "dynamic" they stay grey here, and every fetch draws their bits anew."""
    return _stored(split.pixels, split.labels, levels, binarize, stochastic=binarize == "dynamic")


def evaluation_images(
    split: Arrays | None, levels: int, binarize: Binarize, rng: np.random.RandomState
) -> StoredImages | None:
    """Images for validation or test: under "dynamic" their bits are drawn once, here.

    Args:
        split: grey values; None for a split that does not exist.
        levels: number of grey values.
        binarize: how grey values become bits.
        rng: NumPy's legacy generator, whose stream is the same in every version; it is advanced.
    """
    if split is None:
        return None
    pixels = random_bits(split.pixels, levels, rng) if binarize == "dynamic" else split.pixels
    return _stored(pixels, split.labels, levels, binarize, stochastic=False)


def _stored(
    pixels: np.ndarray, labels: np.ndarray, levels: int, binarize: Binarize, *, stochastic: bool
) -> StoredImages:
    if binarize == "threshold":
        pixels = (pixels >= levels / 2).astype(np.uint8)
    y = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    return StoredImages(
        TensorStore(torch.as_tensor(np.ascontiguousarray(pixels))),
        levels if binarize == "none" or stochastic else 2,
        y[:, None] if y.ndim == 1 else y,
        stochastic,
    )


def stored_split(
    train: Arrays, test: Arrays, num_train: int, binarize: Binarize, *, seed: int, extra: Arrays | None = None
) -> Splits:
    """Cuts a validation split from published training images and keeps the published test images.

    Args:
        train: the published training images, with 256 levels.
        test: the published test images.
        num_train: number of images for training, `extra` included.
        binarize: how grey values become bits.
        seed: decides which images are validated on, and the bits of validation and test (validation first).
        extra: further training images, none of which becomes a validation image.
    """
    order = shuffled(len(train.pixels), seed)
    rng = np.random.RandomState(seed)
    cut = num_train if extra is None else num_train - len(extra.pixels)
    own = train.take(order[:cut])
    return {
        "train": training_images(own if extra is None else joined(own, extra), 256, binarize),
        "valid": evaluation_images(train.take(order[cut:]), 256, binarize, rng),
        "test": evaluation_images(test, 256, binarize, rng),
    }


def joined(first: Arrays, second: Arrays) -> Arrays:
    """The images of both."""
    return Arrays(
        np.concatenate([first.pixels, second.pixels]),
        np.concatenate([first.labels, second.labels]),
    )
