"""A source of images, and the data set that is read from it.

Images leave a data set as float32 in [0, 1] (`Batch`), however they are stored, unless preprocessing maps them further.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vae_train.batch import SPLITS, DataFacts, Images, Split
from vae_train.data.images import TransformedImages
from vae_train.data.storage.loader import Loader
from vae_train.data.storage.stored import Splits
from vae_train.data.transforms.pipeline import Transforms
from vae_train.util.errors import UsageError

Binarize = Literal["none", "dynamic", "threshold"]
"""Keep grey levels; draw bits with the grey values as probabilities, anew for every training batch and once for
validation and test; or cut at one half."""


class Contents(NamedTuple):
    """What is read from a source."""

    splits: Splits
    bad_files: tuple[tuple[str, str], ...] = ()
    """Files that were skipped, each with the reason."""


class Source(ABC):
    """Where images come from: a published data set, a folder, a file.

    A source is a frozen dataclass whose fields are the settings of its YAML file, so that equal settings are equal
    sources and are read once.
    """

    @abstractmethod
    def inspect(self) -> DataFacts:
        """Facts about the images; looks at files if they are needed for that, but reads no pixels.

        Raises:
            UsageError: the data is missing, or is not what the settings say.
        """

    @abstractmethod
    def read(self) -> Contents:
        """Reads or opens all splits.

        Raises:
            UsageError: the data is missing or cannot be read; says what to do.
        """

    def stated(self) -> DataFacts:
        """The facts that the settings state, without looking at any file; `num_train` is 0 if they do not say it."""
        return self.inspect()

    def resolved(self) -> dict[str, Any]:
        """Values that inspection found for settings that were left open, for the run's config.yaml."""
        return {}

    @property
    def binarization(self) -> Binarize:
        """How grey values became bits."""
        how: Binarize = getattr(self, "binarize", "none")
        return how


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of a data set on their way to a model.

    Args:
        stored_facts: facts about the images as they are stored.
        splits: the images, on the device or where they are read from.
        device: the training device.
        loader: how images that are not on the device are read.
        storage: where the pixels are, for the log.
        transforms: what happens to the images on their way to a model.
        checksum: identifies the pixels.
        bad_files: files that were skipped, each with the reason.
        binarization: how grey values became bits.
        resolved: values that inspection found for settings of the source that were left open.
    """

    stored_facts: DataFacts
    splits: Splits
    device: torch.device
    loader: Loader
    storage: str
    transforms: Transforms
    checksum: str
    bad_files: tuple[tuple[str, str], ...]
    binarization: Binarize
    resolved: Mapping[str, Any]

    @property
    def facts(self) -> DataFacts:
        """Facts about the images that a model receives."""
        return self.transforms.facts(self.stored_facts)

    def split(self, name: Split) -> TransformedImages | None:
        """The images of one split, neither augmented nor corrupted; None if the data set has no such split."""
        return self._images(name, Transforms(preprocessing=self.transforms.preprocessing))

    def training(self) -> Images:
        """The training images, augmented and corrupted."""
        images = self._images("train", self.transforms)
        assert images is not None
        return images

    def preview(self) -> Images:
        """The images whose reconstructions are shown: validation images, corrupted like training images."""
        transforms = self.transforms._replace(augmentation=None)
        images = self._images("valid", transforms) or self._images("train", transforms)
        assert images is not None
        return images

    def to_pixels(self, x: Tensor) -> Tensor:
        """Maps images `(N, C, H, W)` of a model back to [0, 1]."""
        return self.transforms.to_pixels(x)

    def _images(self, name: Split, transforms: Transforms) -> TransformedImages | None:
        stored = self.splits[name]
        if stored is None:
            return None
        return TransformedImages(stored, self.device, transforms, self.loader.workers, self.loader.prefetch)


def checksum(splits: Splits) -> str:
    """SHA-256 of the pixels of all splits, see `StoredImages.update`."""
    digest = hashlib.sha256()
    for name in SPLITS:
        if (images := splits[name]) is not None:
            images.update(digest)
    return "sha256:" + digest.hexdigest()


def check_contents(name: str, contents: Contents, facts: DataFacts) -> None:
    """Compares what was read from the source called `name` with its facts.

    Raises:
        UsageError: shapes or numbers of images or labels differ.
    """
    for split, images in contents.splits.items():
        if images is None:
            continue
        if images.labels is not None and len(images.labels) != len(images):
            raise UsageError(f"there are {len(images):,} {split} images and {len(images.labels):,} labels")
        if images.shape != facts.data_shape:
            raise UsageError(f"the {split} images are {images.shape}, not {facts.data_shape}")
    count = len(contents.splits["train"] or ())
    if count != facts.num_train and not contents.bad_files:  # bad files are no images
        raise UsageError(f"{name} has {count:,} training images here, not {facts.num_train:,}")
