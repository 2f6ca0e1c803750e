"""Any folder of images."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from typing_extensions import override

from vae_train.batch import SPLITS, DataFacts, Factor, Split, evenly_spaced
from vae_train.data.sources.base import Binarize, Contents, Source, binarized_levels
from vae_train.data.storage.cache import cache_folder, decoded
from vae_train.data.storage.decoding import Background, BadImage, Decoding, Fit, Resample, header, quiet
from vae_train.data.storage.listing import Listing, list_folder
from vae_train.data.storage.stored import cut, split_rows
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import Fraction, PositiveInt, Seed

NUM_HEADERS = 256
"""Files whose headers are read to infer size and channels."""

MAX_SKIPPED = 10
"""Bad files that are always skipped, whatever `max_bad` says."""

Size = PositiveInt | list[PositiveInt]


@dataclass(frozen=True)
class Folder(Source):
    """PNG, JPEG, WebP, BMP, TIFF and GIF files (the first frame), 8 or 16 bit, grey, RGB, with palette or transparency.

    Images lie in the folder itself or in one sub-folder per class. Sub-folders called train, valid (or val, validation)
    and test are the splits; a split without a folder is cut from the training images. All images are decoded once into
    a cache of uint8 pixels, which is used until a name, a size or a time changes.

    Args:
        root: the folder.
        size: height and width, or one number for both; None if all images have the same.
        channels: 1 for grey, 3 for RGB; None for 1 if all images are grey, else 3.
        fit: how an image gets its size, see `vae_train.data.storage.decoding.Decoding`.
        crop: pixels that are cut out of an image's middle before that; None for all of it.
        resample: how it is scaled.
        background: what is behind transparent pixels.
        binarize: see `vae_train.data.sources.base.Binarize`.
        valid: fraction of the images for validation, if no folder names the split.
        test: likewise for the test split.
        split_seed: decides which images these are.
        max_bad: fraction of the files that may be unreadable; up to ten always may.
        cache: folder of the caches; None for the user's own (XDG_CACHE_HOME, else ~/.cache).
    """

    root: str | None
    size: Size | None
    channels: Literal[1, 3] | None
    fit: Fit
    crop: Size | None
    resample: Resample
    background: Background
    binarize: Binarize
    valid: Fraction
    test: Fraction
    split_seed: Seed
    max_bad: Fraction
    cache: str | None

    def __post_init__(self) -> None:
        if self.valid + self.test >= 1:
            raise ValueError(f"valid={self.valid:g} and test={self.test:g} leave nothing to train on")
        _pair("size", self.size)
        _pair("crop", self.crop)

    @override
    def inspect(self) -> DataFacts:
        listing, size, channels = self._inspection
        names = tuple(listing.class_names)
        factors = () if listing.labels is None else (Factor("class", len(names), names),)
        levels = binarized_levels(256, self.binarize)
        return DataFacts((channels, *size), levels, len(self._rows(listing)["train"]), factors)

    @override
    def resolved(self) -> dict[str, Any]:
        _, size, channels = self._inspection
        return {"size": list(size), "channels": channels}

    @override
    def read(self) -> Contents:
        listing, size, channels = self._inspection
        how = Decoding(size, channels, self.fit, _pair("crop", self.crop), self.resample, self.background,
                       threshold=self.binarize == "threshold")  # fmt: skip
        pixels, bad = decoded(listing.root, listing.entries, how, cache_folder(self.cache))
        bad_files = tuple((listing.entries[number].name, why) for number, why in sorted(bad.items()))
        self._check_bad_files(bad_files, len(listing.entries))
        rows = {name: own[~np.isin(own, list(bad))] for name, own in self._rows(listing).items()}
        if not len(rows["train"]):
            raise UsageError("no training image could be read")
        labels = None if listing.labels is None else torch.tensor(listing.labels)[:, None]
        levels, stochastic = 2 if self.binarize == "threshold" else 256, self.binarize == "dynamic"
        return Contents(split_rows(pixels, rows, levels, labels, stochastic=stochastic), bad_files)

    @cached_property
    def _inspection(self) -> tuple[Listing, tuple[int, int], int]:
        """The listing, size and channels; reads the headers of some files if size or channels are left open."""
        if self.root is None:
            raise UsageError([ErrorDetail("data.root=", "is needed: the folder of the images")])
        listing, size = list_folder(str(self.root)), _pair("size", self.size)
        if size is not None and self.channels is not None:
            return listing, size, self.channels
        sizes, all_grey = _headers(listing)
        size = size or _pair("crop", self.crop) or _common_size(sizes)
        return listing, size, self.channels or (1 if all_grey else 3)

    def _rows(self, listing: Listing) -> dict[Split, np.ndarray]:
        """Numbers of the files of every split, bad ones included, so that a bad file does not move the others."""
        rows = {name: np.flatnonzero(np.array(listing.splits) == name) for name in SPLITS}
        return cut(rows, {"valid": self.valid, "test": self.test}, self.split_seed)

    def _check_bad_files(self, bad_files: tuple[tuple[str, str], ...], total: int) -> None:
        """Refuses a folder with too many bad files."""
        count = len(bad_files)
        if count <= MAX_SKIPPED or count <= self.max_bad * total:
            return
        examples = "; ".join(f"{name}: {why}" for name, why in bad_files[:3])
        raise UsageError(
            f"{count:,} of {total:,} files cannot be read ({examples}; …). Remove them, or allow more with "
            f"data.max_bad={math.ceil(100 * count / total) / 100:g}"
        )


def _headers(listing: Listing) -> tuple[set[tuple[int, int]], bool]:
    """Sizes of images that are spread over the folder, and whether all of these are grey."""
    usable = np.flatnonzero([entry.problem is None for entry in listing.entries])  # opening a pipe would block
    headers = []
    for number in usable[evenly_spaced(len(usable), NUM_HEADERS).numpy()].tolist():
        try:
            with quiet():
                headers.append(header(listing.root / listing.entries[number].name))
        except BadImage:
            continue
    if not headers:
        raise UsageError("none of its files is an image that can be read")
    return {size for size, _ in headers}, all(grey for _, grey in headers)


def _common_size(sizes: set[tuple[int, int]]) -> tuple[int, int]:
    """(H, W) of all images."""
    if len(sizes) == 1:
        return next(iter(sizes))
    smallest = min(min(size) for size in sizes)
    # A power of two, from 32 to 256, that the smallest image can fill.
    example = max(32, min(256, 2 ** int(math.log2(max(smallest, 1)))))
    raise UsageError(f"the images have different sizes; set data.size, for instance data.size={example}")


def _pair(name: str, size: Size | None) -> tuple[int, int] | None:
    """(height, width)."""
    if size is None:
        return None
    if isinstance(size, int):
        return (size, size)
    if len(size) != 2:
        raise ValueError(f"{name} is {list(size)}: give one number, or [height, width]")
    return (int(size[0]), int(size[1]))
