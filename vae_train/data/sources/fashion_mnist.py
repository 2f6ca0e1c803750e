"""Fashion-MNIST: 70,000 grey images of clothes, 28x28 pixels (Xiao et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.sources.base import IdxSource
from vae_train.data.storage.bits import Binarize
from vae_train.data.storage.published import class_facts


@dataclass(frozen=True)
class FashionMNIST(IdxSource):
    """Fashion-MNIST, split into 50,000 / 10,000 / 10,000 images by a stored seed.

    Args:
        root: folder that contains `FashionMNIST/raw`; missing files are downloaded to it.
        binarize: "none", "dynamic" or "threshold", see `vae_train.data.storage.bits.Binarize`.
    """

    root: str
    binarize: Binarize
    name = "FashionMNIST"

    @override
    def inspect(self) -> DataFacts:
        return class_facts((1, 28, 28), 50_000, 10, self.binarize)
