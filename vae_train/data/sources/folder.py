"""A source of images in any folder."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from typing_extensions import override

from vae_train.batch import DataFacts, Factor, Split, Units
from vae_train.data.sources.base import Binarize, Contents, Source, binarized_levels
from vae_train.data.storage.cache import DecodedFolder, decoded
from vae_train.data.storage.cache_place import cache_folder
from vae_train.data.storage.decoding import Background, BadImage, Decoding, Fit, Resample
from vae_train.data.storage.dropped import sentences
from vae_train.data.storage.frames import frame_headers, is_video
from vae_train.data.storage.headers import all_headers, frame_entries
from vae_train.data.storage.levels import inferred_levels, stated_bounds
from vae_train.data.storage.listing import IMAGES, VIDEOS, Entry, Listing, check_bad_files, list_folder
from vae_train.data.storage.stored import split_rows
from vae_train.data.storage.video_files import EXTRA
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.extras import import_extra
from vae_train.util.ranges import Fraction, PositiveInt, Seed

MAX_LEVELS = 2**16
"""Number of levels of 16-bit pixels."""

Size = PositiveInt | list[PositiveInt]


class _Inspection(NamedTuple):
    """The result of inspecting a folder, before its images are decoded."""

    listing: Listing
    size: tuple[int, int]
    channels: int
    entries: list[Entry]
    """Every image: the files, or all of their frames."""
    files: np.ndarray
    """Index of every image's file."""
    rows: dict[Split, np.ndarray]
    """Indices of the images of every split."""
    notes: tuple[str, ...]
    every_frame: bool


@dataclass(frozen=True)
class Folder(Source):
    """PNG, JPEG, WebP, BMP, TIFF and GIF files with 8 or 16 bits: grey, RGB, with palette or transparency; or videos.

    Videos are used in a folder without images, and their frames are images in order.

    Images are in the folder itself or in one sub-folder per class. Sub-folders called train, valid (or val, validation)
    and test define the splits; other splits are taken from the training images. All images are decoded once into
    a cache of pixels, which is used until a file's name, size or time changes.

    Levels are inferred from all pixels: 2 for exactly two values, 256 for 8 bits, and for 16-bit grey files the
    least of 10, 12, 14 or 16 bits that suffices. 8-bit files in the same folder are scaled to these.

    Args:
        root: the folder, or a single file.
        size: height and width, or one number for both; None if all images have the same size.
        channels: 1 for grey, 3 for RGB; None for 1 if all images are grey, else 3.
        fit: how images with other aspect ratios fit the size, see `vae_train.data.storage.decoding.Decoding`.
        crop: size of a centre crop before resizing; None for the whole image.
        resample: interpolation for resizing.
        background: colour behind transparent pixels and beside padded images; None for white if the visible part of
            transparent images is on average darker than medium grey, else black.
        frames: "first" uses the first frame or page of every file, "all" uses each as an image; None for "all" of
            videos, else "first". Frames of a file are in the same split if there are enough files.
        levels: number of values of a pixel; None to infer it. Levels may be multiples of a number, such as 0, 17, …,
            255 for 16 levels.
        range: the pixel values that are mapped to 0 and 1; None to infer them.
        binarize: see `vae_train.data.sources.base.Binarize`.
        valid: fraction of the images for validation, if there is no such folder.
        test: fraction of the images for testing, likewise.
        split_seed: seed of the random split.
        max_bad: fraction of unreadable files that is accepted; up to ten always are.
        cache: folder for caches; None for the user's own (XDG_CACHE_HOME, else ~/.cache).
    """

    root: str | None
    size: Size | None
    channels: Literal[1, 3] | None
    fit: Fit
    crop: Size | None
    resample: Resample
    background: Background | None
    frames: Literal["first", "all"] | None
    levels: PositiveInt | None
    range: list[int] | None
    binarize: Binarize
    valid: Fraction
    test: Fraction
    split_seed: Seed
    max_bad: Fraction
    cache: str | None

    def __post_init__(self) -> None:
        if self.valid + self.test >= 1:
            raise ValueError(f"valid={self.valid:g} and test={self.test:g} leave no images for training")
        _pair("size", self.size)
        _pair("crop", self.crop)
        if self.levels is not None and not 2 <= self.levels <= MAX_LEVELS:
            raise ValueError(f"levels={self.levels}: must be 2 to {MAX_LEVELS:,}")
        if self.range is not None and (len(self.range) != 2 or not 0 <= self.range[0] < self.range[1] < MAX_LEVELS):
            raise ValueError(f"range={list(self.range)} is not [smallest, largest] of 0 to {MAX_LEVELS - 1:,}")

    @override
    def inspect(self) -> DataFacts:
        inspection = self._inspection
        listing, (height, width), channels, *_ = inspection
        names = tuple(listing.class_names)
        factors = () if listing.labels is None else (Factor("class", len(names), names),)
        levels = binarized_levels(self._grid[0], self.binarize)
        return DataFacts((channels, height, width), levels, len(inspection.rows["train"]), factors)

    @override
    def resolved(self) -> dict[str, Any]:
        _, size, channels, *_ = self._inspection
        levels, bounds, _ = self._grid
        return {"size": list(size), "channels": channels, "background": self._decoded[1],
                "frames": "all" if self._inspection.every_frame else "first", "levels": levels,
                "range": list(bounds)}  # fmt: skip

    @override
    def read(self) -> Contents:
        (pixels, bad, dropped, _), background = self._decoded
        listing, _, _, entries, files, all_rows, notes, _ = self._inspection
        bad_files = tuple((_frame_name(entries[number]), why) for number, why in sorted(bad.items()))
        check_bad_files(bad_files, len(entries), self.max_bad)
        rows = {name: own[~np.isin(own, list(bad))] for name, own in all_rows.items()}
        if not len(rows["train"]):
            raise UsageError("no training image could be read")
        labels = None if listing.labels is None else torch.tensor(listing.labels)[files, None]
        if self.background is not None:
            dropped = {kind: own for kind, own in dropped.items() if kind != "transparency"}
        levels, (low, high), level_notes = self._grid
        if self.binarize == "threshold":
            splits = split_rows(pixels, rows, 2, labels, threshold=(low + high) / 2)
        else:
            plain = (low, high) == (0, levels - 1)
            units = None if plain else Units((), (low,), ((high - low) / (levels - 1),), (low,), (high,))
            splits = split_rows(pixels, rows, levels, labels, stochastic=self.binarize == "dynamic", units=units)
        return Contents(splits, bad_files, (*notes, *level_notes, *sentences(dropped, background)))

    @cached_property
    def _grid(self) -> tuple[int, tuple[int, int], list[str]]:
        """Number of levels, the pixel values of the first and the last level, and notes.

        Raises:
            UsageError: the pixels do not match the settings.
        """
        bits, high, scaled, found = self._decoded[0].depths
        levels, notes = self.levels, list[str]()
        if levels is None:
            known = found._replace(high=high) if bits > 8 else found
            levels, notes = (self.range[1] - self.range[0] + 1, []) if self.range else inferred_levels(known, bits)
        bounds = (self.range[0], self.range[1]) if self.range else stated_bounds(found, levels)
        if not found.fit(levels, *bounds):
            what = f"pixels from {found.low} to {found.high} in the files do not match {levels} levels in this range"
            raise UsageError([ErrorDetail(f"data.range={list(bounds)}", what)])
        if scaled:
            notes.append(f"{scaled:,} images have 8 bits and are scaled to the {bits} bits of the others")
        return levels, bounds, notes

    @cached_property
    def _decoded(self) -> tuple[DecodedFolder, Background]:
        """All images, and the background of transparent pixels, chosen for contrast."""
        listing, size, channels, entries, *_ = self._inspection
        how = Decoding(size, channels, self.fit, _pair("crop", self.crop), self.resample, self.background or "black",
                       self._inspection.every_frame)  # fmt: skip
        images = decoded(listing.root, entries, how, self.cache)
        transparent = images.dropped.get("transparency")
        if self.background is None and transparent and transparent.total < 128 * transparent.images:
            how = replace(how, background="white")
            images = decoded(listing.root, entries, how, self.cache)
        return images, how.background

    @cached_property
    def _inspection(self) -> _Inspection:
        """Lists the folder, and reads the headers of all files if size, channels or frames need it."""
        if self.root is None:
            raise UsageError([ErrorDetail("data.root=", "is needed: the folder of the images")])
        listing, size, channels = list_folder(str(self.root), IMAGES, VIDEOS), _pair("size", self.size), self.channels
        entries, notes, has_videos = (
            listing.entries,
            [*listing.notes, *listing.left_out],
            is_video(listing.entries[0].name),
        )
        every_frame = self.frames == "all" or (self.frames is None and has_videos)
        if has_videos:
            import_extra("av", EXTRA)  # here, since an error of a worker would not be the user's
        files = np.arange(len(entries))
        if size is None or channels is None or every_frame:
            found = all_headers(listing.root, entries, every_frame, cache_folder(self.cache))
            known = [header for frames in found for header in frames]
            if not known:
                noun = "video" if has_videos else "image"
                raise UsageError(f"none of its files is a readable {noun} ({_reason(listing)})")
            size = size or _pair("crop", self.crop) or _common_size({header.size for header in known})
            if channels is None:
                channels = 1 if all(header.grey for header in known) else 3
                notes += _note_on_colors(sum(not header.grey for header in known), len(known))
            if every_frame:
                entries, files = frame_entries(entries, list(map(len, found)))
        rows, by_file = listing.rows(files, {"valid": self.valid, "test": self.test}, self.split_seed)
        if not by_file:
            notes.append("frames of the same file are in several splits, since there are too few files")
        return _Inspection(listing, size, channels, entries, files, rows, tuple(notes), every_frame)


def _note_on_colors(colored: int, total: int) -> list[str]:
    """A note if some images are grey and some are not."""
    if colored in (0, total):
        return []
    return [f"{colored:,} of {total:,} images have colours, so all become RGB; data.channels=1 makes all grey"]


def _reason(listing: Listing) -> str:
    """Why the first file of a folder is not a readable image."""
    entry = listing.entries[0]
    try:
        frame_headers(listing.root / entry.name)
    except BadImage as error:
        return f"{entry.name}: {error}"
    return f"{entry.name}: {entry.problem}"


def _frame_name(entry: Entry) -> str:
    return f"{entry.name} (frame {entry.frame + 1})" if entry.frame else entry.name


def _common_size(sizes: set[tuple[int, int]]) -> tuple[int, int]:
    """(H, W) of all images, which must be the same."""
    if len(sizes) == 1:
        return next(iter(sizes))
    smallest = min(min(size) for size in sizes)
    # A power of two between 32 and 256 that does not exceed the smallest image.
    example = max(32, min(256, 2 ** int(math.log2(max(smallest, 1)))))
    raise UsageError(f"the images have different sizes; set data.size, for instance data.size={example}")


def _pair(name: str, size: Size | None) -> tuple[int, int] | None:
    """(height, width)."""
    if size is None:
        return None
    if isinstance(size, int):
        return (size, size)
    if len(size) != 2:
        raise ValueError(f"{name} is {list(size)}: use one number, or [height, width]")
    return (int(size[0]), int(size[1]))
