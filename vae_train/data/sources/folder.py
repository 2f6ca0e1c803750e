"""Any folder of images."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from typing_extensions import override

from vae_train.batch import SPLITS, Factor, evenly_spaced
from vae_train.data.dataset import Dataset
from vae_train.data.storage.cache import cache_folder, decoded
from vae_train.data.storage.decoding import Background, BadImage, Decoding, Fit, Resample, header, quiet
from vae_train.data.storage.listing import Listing, list_folder
from vae_train.data.storage.splits import cut
from vae_train.data.storage.stored import ArrayImages, Binarize, Hosted
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import Fraction, PositiveInt, Seed

HEADERS = 256
"""Files that are looked at to find out size and channels."""

FEW = 10
"""Bad files that are always skipped."""

Size = PositiveInt | list[PositiveInt]


class Folder(Dataset):
    """PNG, JPEG, WebP, BMP, TIFF and GIF files (the first frame), 8 or 16 bit, grey, RGB, with palette or transparency.

    Images lie in the folder itself or in one sub-folder per class. Where the sub-folders are called train, valid (or
    val, validation) and test, they are the splits; a split that has no folder is cut from the training images. All are
    decoded once into a cache of uint8 pixels, which is used until a name, a size or a time changes.

    Args:
        root: the folder.
        size: height and width, or one number for both; None where all images have the same.
        channels: 1 for grey, 3 for RGB; None for 1 where the images are grey, else 3.
        fit: how an image gets its size, see `vae_train.data.storage.decoding.Decoding`.
        crop: pixels that are cut out of an image's middle before that; None for all of it.
        resample: how it is scaled.
        background: what is behind transparent pixels.
        binarize: see `vae_train.data.sources.digits.Digits`.
        valid: share of the images that validate, where no folder says which.
        test: likewise for the test split.
        split_seed: decides which images these are.
        max_bad: share of the files that may be unreadable; up to ten always may.
        cache: folder of the caches; None for the user's own (XDG_CACHE_HOME, else ~/.cache).
    """

    def __init__(
        self,
        root: str | None,
        size: Size | None,
        channels: Literal[1, 3] | None,
        fit: Fit,
        crop: Size | None,
        resample: Resample,
        background: Background,
        binarize: Binarize,
        valid: Fraction,
        test: Fraction,
        split_seed: Seed,
        max_bad: Fraction,
        cache: str | None,
    ) -> None:
        super().__init__()
        if valid + test >= 1:
            raise ValueError(f"valid={valid:g} and test={test:g} leave nothing to train on")
        self.root, self.size, self.channels = root, _pair("size", size), channels
        self.fit, self.crop, self.resample, self.background = fit, _pair("crop", crop), resample, background
        self.binarize, self.shares, self.split_seed = binarize, {"valid": valid, "test": test}, split_seed
        self.max_bad, self.cache = max_bad, cache_folder(cache)
        self.levels, self.classes = 256 if binarize == "none" else 2, None
        self._listing: Listing | None = None
        self._settle()

    def inspect(self) -> Dataset:
        """See `Dataset.inspect`: lists the folder, and looks into some files where size or channels are left open."""
        if self.root is None:
            raise UsageError([ErrorDetail("data.root=", "is needed: the folder of the images")])
        self._listing = listing = list_folder(str(self.root))
        if self.size is None or self.channels is None:
            self._infer(listing)
        if listing.labels is not None:
            self.classes = len(listing.class_names)
            self.factors = (Factor("class", self.classes, tuple(listing.class_names)),)
        self.num_train = len(self._rows(listing)["train"])
        return self

    @override
    def inferred(self) -> dict[str, Any]:
        return {"size": list(self.size or ()), "channels": self.channels}

    def read(self) -> dict[str, ArrayImages | None]:
        """See `Dataset.read`: opens the cache, or makes it."""
        if self._listing is None:
            self.inspect()
        listing = self._listing
        assert listing is not None
        assert self.size is not None
        assert self.channels is not None
        how = Decoding(self.size, self.channels, self.fit, self.crop, self.resample, self.background,
                       threshold=self.binarize == "threshold")  # fmt: skip
        pixels, bad = decoded(listing.root, listing.entries, how, self.cache)
        self.bad_files = [(listing.entries[number].name, why) for number, why in sorted(bad.items())]
        self._judge(listing)
        labels = None if listing.labels is None else torch.tensor(listing.labels)[:, None]
        splits: dict[str, ArrayImages | None] = {}
        for name, rows in self._rows(listing).items():
            good = rows[~np.isin(rows, list(bad))]
            stored_levels = 2 if self.binarize == "threshold" else 256
            splits[name] = ArrayImages(
                Hosted(pixels, good),
                stored_levels,
                None if labels is None else labels[torch.from_numpy(good)],
                stochastic=self.binarize == "dynamic",
            ) if len(good) else None  # fmt: skip
        if splits["train"] is None:
            raise UsageError("no training image could be read")
        self.num_train = len(splits["train"])
        return splits

    def _settle(self) -> None:
        """States the shape, once it is known."""
        if self.size is not None and self.channels is not None:
            self.shape = (self.channels, *self.size)

    def _infer(self, listing: Listing) -> None:
        """Finds size and channels from the headers of files that are spread over the folder."""
        usable = np.flatnonzero([entry.problem is None for entry in listing.entries])  # a pipe would be waited for
        sizes, greys = set(), []
        for number in usable[evenly_spaced(len(usable), HEADERS).numpy()].tolist():
            try:
                with quiet():
                    size, grey = header(listing.path(number))
            except BadImage:
                continue
            sizes.add(size)
            greys.append(grey)
        if not sizes:
            raise UsageError("none of its files is an image that can be read")
        if self.size is None:
            self.size = self.crop or sizes.pop()
            if sizes and not self.crop:
                smallest = min(min(size) for size in (*sizes, self.size))
                raise UsageError(
                    f"the images have different sizes: set data.size, for instance data.size={_round_size(smallest)}"
                )
        self.channels = self.channels or (1 if all(greys) else 3)
        self._settle()

    def _rows(self, listing: Listing) -> dict[str, np.ndarray]:
        """Numbers of the files of every split, bad ones included: what is bad does not move the others."""
        named = np.array([name or "train" for name in listing.splits])
        return cut({name: np.flatnonzero(named == name) for name in SPLITS}, self.shares, self.split_seed)

    def _judge(self, listing: Listing) -> None:
        """Refuses a folder of which too much is bad."""
        count, total = len(self.bad_files), len(listing.entries)
        if count <= FEW or count <= self.max_bad * total:
            return
        some = "; ".join(f"{name}: {why}" for name, why in self.bad_files[:3])
        raise UsageError(
            f"{count:,} of {total:,} files cannot be read ({some}; …). Remove them, or allow more with data.max_bad="
            f"{math.ceil(100 * count / total) / 100:g}"
        )


def _pair(name: str, size: Any) -> tuple[int, int] | None:
    """(height, width)."""
    if size is None:
        return None
    if isinstance(size, int):
        return (size, size)
    if len(size) != 2:
        raise ValueError(f"{name} is {list(size)}: give one number, or [height, width]")
    return (int(size[0]), int(size[1]))


def _round_size(smallest: int) -> int:
    """A power of two that the smallest image can fill; at least 32."""
    return max(32, min(256, 2 ** int(math.log2(max(smallest, 1)))))
