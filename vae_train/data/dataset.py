"""A data set, whose splits convert stored pixels to the batches of a model.

A `Batch` has float32 images in [0, 1], however they are stored, unless preprocessing maps them further.
Vectors and signals are standardised (`Units`), or in [0, 1] for likelihoods that need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, DataFacts, Images, Raw, Split, Units, split_missing
from vae_train.data.sources.base import Binarize
from vae_train.data.storage.loader import DEFAULT_LOADER, Loader
from vae_train.data.storage.stored import Splits, StoredImages
from vae_train.data.transforms.augmentation import Augmentation
from vae_train.data.transforms.corruption import Corruption
from vae_train.data.transforms.preprocessing import Preprocessing
from vae_train.rng import Rng

CPU = torch.device("cpu")


class Transforms(NamedTuple):
    """Augmentation of training images, corruption of the encoder's input, and preprocessing; None skips a step.

    `units` and `missing` are facts about the stored values: their scaling, and whether some may be NaN.
    """

    augmentation: Augmentation | None = None
    corruption: Corruption | None = None
    preprocessing: Preprocessing | None = None
    units: Units | None = None
    missing: bool = False

    def active(self) -> Transforms:
        """A copy with None for steps that change nothing."""
        inactive: dict[str, Any] = {
            name: None for name, step in self._asdict().items() if not getattr(step, "active", True)
        }
        return self._replace(**inactive)

    def facts(self, facts: DataFacts) -> DataFacts:
        """Facts about the images that a model receives, which have no levels after continuous preprocessing."""
        continuous = self.preprocessing is not None and self.preprocessing.active
        return facts._replace(levels=None) if continuous else facts

    def to_pixels(self, x: Tensor) -> Tensor:
        """Maps images `(N, C, H, W)` of a model to [0, 1]; values beyond the range of the data exceed it."""
        x = self.undo(x)
        return x if self.units is None else self.units.to_unit(x)

    def undo(self, x: Tensor) -> Tensor:
        """Inverts preprocessing of images `(N, C, H, W)` of a model."""
        return x if self.preprocessing is None else self.preprocessing.inverse(x)


NO_TRANSFORMS = Transforms()


@dataclass(frozen=True, eq=False)
class TransformedImages(Images):
    """A split with all of its transforms: unit scale, augmentation, binarisation, preprocessing, corruption.

    Args:
        stored: the stored images, on `device` or elsewhere.
        device: the training device.
        transforms: augmentation, corruption and preprocessing.
        loader: prefetches images that are not on the device.
    """

    stored: StoredImages
    device: torch.device = CPU
    transforms: Transforms = NO_TRANSFORMS
    loader: Loader = DEFAULT_LOADER

    @override
    def __len__(self) -> int:
        return len(self.stored)

    @property
    @override
    def resident(self) -> bool:
        return self.stored.store.device == self.device and self.stored.store.immediate

    @override
    def gather(self, index: Tensor) -> Raw:
        return self._sent(self.stored.take(index))

    @override
    def prefetch(self, indices: Iterator[Tensor]) -> Iterator[Raw]:
        return map(self._sent, self.loader.prefetched(self.stored, indices, pinned=self.device.type == "cuda"))

    @override
    def finish(self, raw: Raw, rng: Rng | None = None) -> Batch:
        """Computes the batch of a model; without `rng` nothing is augmented, corrupted or binarised at random.

        Missing values are 0 for the model, also after preprocessing.
        """
        stored, (augmentation, corruption, preprocessing, units, missing) = self.stored, self.transforms
        x = stored.unit(raw.pixels)
        if augmentation is not None and rng is not None:
            x = augmentation(x, rng)
            if stored.levels is not None and not stored.stochastic:  # round to the levels that the likelihood scores
                x = x.mul(stored.levels - 1).round_().div_(stored.levels - 1)
        observed = None
        if missing:  # after augmentation, which also moves missing values
            x, observed = split_missing(x)
        if stored.stochastic and rng is not None:
            x = (rng.uniform((1, *x.shape))[0] < x).float()
        batch = Batch(x, raw.y, mask=observed)
        hidden = None
        if corruption is not None and rng is not None:
            hidden = corruption.hidden(x, rng)
            batch = batch._replace(mask=corruption.mask_of(hidden, observed))
        if preprocessing is not None:
            batch = preprocessing(batch, 2 if stored.stochastic else stored.levels, rng)
        if observed is not None:
            batch = batch._replace(x=torch.where(observed, batch.x, 0.0))
            hidden = ~observed if hidden is None else hidden | ~observed
        if corruption is not None and rng is not None:
            batch = batch._replace(encoder_input=corruption.encoder_input(batch.x, hidden, rng))
        continuous = stored.levels is None and not stored.stochastic
        return batch if units is None or not continuous else units.with_log_det(batch)

    def _sent(self, raw: Raw) -> Raw:
        """Copies images to the training device, asynchronously from pinned memory."""
        if raw.pixels.device == self.device:
            return raw
        pixels, y = (t if t is None else t.to(self.device, non_blocking=t.is_pinned()) for t in raw)
        assert pixels is not None
        return Raw(pixels, y)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A loaded data set: its splits with their transforms, and facts about it.

    Args:
        stored_facts: facts about the images as they are stored.
        splits: the stored images, on the device or elsewhere.
        device: the training device.
        loader: how images that are not on the device are read.
        storage: where the pixels are, for the log.
        transforms: transforms between stored images and the model.
        checksum: identifies the pixels.
        bad_files: files that were skipped, each with the reason.
        notes: what was left out, replaced or guessed, a sentence each.
        binarization: how grey values become bits.
        resolved: inferred values of the source's settings that were null.
    """

    stored_facts: DataFacts
    splits: Splits
    device: torch.device
    loader: Loader
    storage: str
    transforms: Transforms
    checksum: str
    bad_files: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    binarization: Binarize
    resolved: Mapping[str, Any]

    @property
    def facts(self) -> DataFacts:
        """Facts about the images that a model receives."""
        return self.transforms.facts(self.stored_facts)

    def split(self, name: Split) -> TransformedImages | None:
        """The images of one split, neither augmented nor corrupted; None if the data set has no such split."""
        transforms = self.transforms._replace(augmentation=None, corruption=None)
        return self._images(name, transforms) if name in self.splits else None

    def training(self) -> Images:
        """The training images, augmented and corrupted."""
        return self._images("train", self.transforms)

    def preview(self) -> Images:
        """The images for previews of reconstructions: validation images, corrupted like training images.

        Their masks mark the pixels that the encoder sees, whatever the likelihood covers.
        """
        return self._shown("valid" if "valid" in self.splits else "train", self.transforms._replace(augmentation=None))

    def examples(self) -> Images:
        """The training images, augmented and corrupted, with masks as in `preview`."""
        return self._shown("train", self.transforms)

    def labels(self, name: Split) -> Tensor | None:
        """Labels or factors of a split, int64 `(N, F)`; None if the data set has none."""
        return self.splits[name].labels

    def to_pixels(self, x: Tensor) -> Tensor:
        """See `Transforms.to_pixels`."""
        return self.transforms.to_pixels(x)

    def to_shown(self, x: Tensor) -> Tensor:
        """`to_pixels` on the CPU, with levels clipped to [0, 1]; continuous values may exceed this range."""
        pixels = self.to_pixels(x).cpu()
        return pixels if self.stored_facts.levels is None else pixels.clamp(0, 1)

    def _shown(self, name: Split, transforms: Transforms) -> Images:
        corruption = transforms.corruption
        corruption = None if corruption is None else replace(corruption, score="observed")
        return self._images(name, transforms._replace(corruption=corruption))

    def _images(self, name: Split, transforms: Transforms) -> TransformedImages:
        return TransformedImages(self.splits[name], self.device, transforms, self.loader)
