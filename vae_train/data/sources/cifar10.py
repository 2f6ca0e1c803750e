"""CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes (Krizhevsky, 2009)."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.sources.base import CifarSource
from vae_train.data.storage.bits import Binarize
from vae_train.data.storage.published import class_facts


@dataclass(frozen=True)
class CIFAR10(CifarSource):
    """CIFAR-10, split into 45,000 / 5,000 / 10,000 images by a stored seed.

    Args:
        root: folder that contains `cifar-10-batches-py`; missing files are downloaded to it.
        binarize: see `vae_train.data.storage.bits.Binarize`; each colour of a pixel is binarised separately.
    """

    root: str
    binarize: Binarize
    name, folder = "CIFAR10", "cifar-10-batches-py"

    @override
    def inspect(self) -> DataFacts:
        return class_facts((3, 32, 32), 45_000, 10, self.binarize)
