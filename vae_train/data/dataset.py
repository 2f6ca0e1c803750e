"""What a data set is.

Images leave a data set as float32 in [0, 1] (`Batch`), whatever they were stored as.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vae_train.batch import Factor, Images, Shape, Split
from vae_train.util.errors import UsageError

if TYPE_CHECKING:
    from vae_train.data.storage.loader import Loader
    from vae_train.data.storage.stored import ArrayImages
    from vae_train.data.transforms.augmentation import Augmentation
    from vae_train.data.transforms.corruption import Corruption
    from vae_train.data.transforms.preprocessing import Preprocessing


log = logging.getLogger("vae_train")


class Dataset(ABC):
    """Facts about a data set, and its splits.

    The facts are known without the data being there, or after `inspect`; `load` checks them. A subclass sets them in
    its constructor and implements `read`.
    """

    shape: Shape
    """(C, H, W) of one image."""
    levels: int | None
    """Number of values that a stored pixel can take: 2 for binary data, None for continuous data."""
    num_train: int
    """Number of training images."""
    classes: int | None
    """Number of classes that the first column of `Batch.y` names, or None where there are no labels."""
    factors: tuple[Factor, ...] = ()
    """The columns of `Batch.y`, where more is known of them than `classes`."""

    bounds: tuple[float, float] | None = None
    """The numbers that 0 and 1 stand for, where pixels are no levels."""

    def __init__(self) -> None:
        self.checksum = ""
        self.storage = ""
        """Where the pixels lie, in words, once they are loaded."""
        self.bad_files: list[tuple[str, str]] = []
        """Files that were left out, each with the reason."""
        self.augmentation: Augmentation | None = None
        self.corruption: Corruption | None = None
        self.preprocessing: Preprocessing | None = None
        self.loader: Loader | None = None
        self._read: dict[str, ArrayImages | None] | None = None
        self._placed: dict[str, ArrayImages | None] = {}
        self._place: Any = None

    @abstractmethod
    def read(self) -> dict[str, ArrayImages | None]:
        """Reads or opens all splits; None for a split that the data set does not have.

        Raises:
            UsageError: the data is not there or cannot be read; says what to do.
        """

    def inspect(self) -> Dataset:
        """Fills in the facts that only the data knows, without reading pixels; returns itself.

        Raises:
            UsageError: the data is not there or cannot be what was asked for.
        """
        return self

    def inferred(self) -> dict[str, Any]:
        """Settings that were left open and what `inspect` and `load` found for them, for the run's config.yaml."""
        return {}

    def equip(
        self,
        augmentation: Augmentation | None = None,
        corruption: Corruption | None = None,
        preprocessing: Preprocessing | None = None,
        loader: Loader | None = None,
    ) -> Dataset:
        """Says what happens to the pixels on their way to a model, and where they are kept; returns itself."""
        self.augmentation, self.corruption, self.preprocessing = augmentation, corruption, preprocessing
        self.loader = loader
        return self

    @property
    def scored_levels(self) -> int | None:
        """The levels that a likelihood has to do with: None once `Preprocessing` has made them continuous."""
        return None if self.preprocessing is not None and self.preprocessing.continuous else self.levels

    def load(self, device: torch.device | str = "cpu") -> Dataset:
        """Reads the data, checks it against the facts and puts it where it is used on `device`; returns itself."""
        from vae_train.data.storage.loader import Loader

        if self._read is None:
            found = self.read()
            self._verify(found)
            self._read = found
        loader = self.loader or Loader.default()
        device = torch.empty(0, device=device).device  # "cuda" is cuda:0, and a tensor's device has its number
        place = (device, vars(loader))
        if self._place != place:
            self._placed, self.storage = loader.place(self._read, device)
            self._place = place
        return self

    def split(self, name: Split) -> Images | None:
        """The images of one split, or None where there is no such split; `load` comes first."""
        return self._loaded(name)

    def training(self) -> Images:
        """The training split as it is trained on: augmented, and corrupted where that is asked for."""
        train = self._loaded("train")
        assert train is not None
        if self.augmentation is None and self.corruption is None:
            return train
        return train.equipped(augmentation=self.augmentation, corruption=self.corruption)

    def pictured(self) -> Images:
        """The split that pictures are made of: validation, corrupted as training images are, but not augmented."""
        images = self._loaded("valid") or self._loaded("train")
        assert images is not None
        return images if self.corruption is None else images.equipped(corruption=self.corruption)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Images `(N, C, H, W)` as models see them, mapped back to [0, 1]."""
        return x if self.preprocessing is None else self.preprocessing.inverse(x)

    def _loaded(self, name: Split) -> ArrayImages | None:
        assert self._placed, "load() comes before split()"
        images = self._placed[name]
        return images and images.equipped(preprocessing=self.preprocessing)

    def _verify(self, splits: dict[str, ArrayImages | None]) -> None:
        digest = hashlib.sha256()
        for name, images in splits.items():
            if images is None:
                continue
            if images.labels is not None and len(images.labels) != len(images):
                raise UsageError(f"there are {len(images):,} {name} images and {len(images.labels):,} labels")
            if images.shape != tuple(self.shape):
                raise UsageError(f"the {name} images are {images.shape}, not {self.shape}")
            images.update(digest)
        found = len(splits["train"] or ())
        if found != self.num_train:
            raise UsageError(f"{type(self).__name__} has {found:,} training images here, not {self.num_train:,}")
        self.checksum = "sha256:" + digest.hexdigest()
