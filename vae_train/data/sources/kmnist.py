"""Kuzushiji-MNIST: 70,000 cursive Japanese characters of 28x28 grey pixels in ten classes (Clanuwat et al., 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.sources.base import IdxSource
from vae_train.data.storage.bits import Binarize
from vae_train.data.storage.published import class_facts


@dataclass(frozen=True)
class KMNIST(IdxSource):
    """Kuzushiji-MNIST, split into 50,000 / 10,000 / 10,000 images by a stored seed.

    Args:
        root: folder that contains `KMNIST/raw`; missing files are downloaded to it.
        binarize: "none", "dynamic" or "threshold", see `vae_train.data.storage.bits.Binarize`.
    """

    root: str
    binarize: Binarize
    name = "KMNIST"

    @override
    def inspect(self) -> DataFacts:
        return class_facts((1, 28, 28), 50_000, 10, self.binarize)
