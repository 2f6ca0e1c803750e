"""What a trained model is applied to: a split of its data, image or audio files, or an array file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor
from typing_extensions import override

from vae_train.batch import SPLITS, Batch, Fetched, Layout, Shape
from vae_train.data.session import DataSession
from vae_train.data.storage.layouts import file_shape, from_images
from vae_train.data.storage.listing import AUDIO, IMAGES, VIDEOS, FileKind, Listing, list_files, list_folder
from vae_train.evaluation.subject import Noise
from vae_train.model.base import SingleLatent
from vae_train.rng import Rng
from vae_train.runs.apply.recordings import Recording
from vae_train.runs.given import Label
from vae_train.util.errors import ErrorDetail, UsageError

SUFFIXES = {
    "images": IMAGES.suffixes + VIDEOS.suffixes,
    "audio": AUDIO.suffixes,
    "array": (".npy", ".npz", ".pt", ".pth", ".csv", ".tsv"),
}
"""Kind of a file -> its suffixes."""

SEVERAL = {"images", "audio"}
"""Kinds of files of which an input may name several."""


class ArrayForm(NamedTuple):
    """How results are stored that belong to an array file: as its images are."""

    layout: Layout
    """The order of the dimensions."""
    dtype: np.dtype
    """The type; integers are rounded."""
    low: float = 0.0
    """The value of 0, for pixels in [0, 1]."""
    high: float = 1.0
    """The value of 1."""

    def values(self, images: Tensor) -> np.ndarray:
        """Images `(N, C, H, W)` in the units of the data as an array `(N, …)`."""
        values = self.low + (self.high - self.low) * images.double().cpu().numpy()
        values = np.rint(values) if self.dtype.kind in "uib" else values
        return from_images(values.astype(self.dtype), self.layout)

    def shape(self, count: int, image_shape: Shape) -> Shape:
        """The shape of an array of `count` images (C, H, W)."""
        return (count, *file_shape(image_shape, self.layout))


class Tiles(NamedTuple):
    """A model for tiles of larger images."""

    model: SingleLatent
    size: tuple[int, int]
    """(H, W) of a tile."""
    overlap: tuple[int, int]
    """Pixels that neighbouring tiles share, vertically and horizontally."""


@dataclass(frozen=True)
class Inputs:
    """N images with their names, as a model takes them."""

    images: Fetched
    names: Sequence[str]
    """Path of every file relative to the folder, or the number of an image within a split or an array."""
    classes: Sequence[str] | None
    """Name of every image's class; None without labels."""
    title: str
    """Names the folder of the results: the split, folder or file."""
    noise: Noise
    """The noise of all results that are not means."""
    notes: tuple[str, ...] = ()
    """What was done to the images, a sentence each."""
    bad_files: tuple[tuple[str, str], ...] = ()
    """Files that were skipped, each with the reason."""
    form: ArrayForm | None = None
    """How results are stored as one array; None for one PNG per image."""
    tiles: Tiles | None = None
    """The model for tiles of images that keep their own size; None for images of the model's size."""
    recordings: tuple[Recording, ...] = ()
    """Files of which some of the images are consecutive parts, in order; results are such files."""

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int | None) -> Inputs:
        """The first `count` images, with the same noise; all of them if `count` is None."""
        if count is None or count >= len(self):
            return self
        classes = None if self.classes is None else self.classes[:count]
        return replace(
            self,
            images=_First(self.images, count),
            names=self.names[:count],
            classes=classes,
            recordings=tuple(recording.first(count) for recording in self.recordings if recording.start < count),
        )


class _First(Fetched):
    """The first `count` images."""

    def __init__(self, images: Fetched, count: int) -> None:
        self.images, self.count = images, count

    @override
    def __len__(self) -> int:
        return self.count

    @override
    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        return self.images.fetch(index, rng)


@dataclass(frozen=True)
class Request:
    """What a caller asks for.

    Args:
        input: a split, a folder, a file, or several image or audio files.
        key: name of the array with the images in a file with several; None to guess it.
        label: the class of all images, see `Label`; None for those of sub-folders, of the file or of the split.
        seed: seed of the noise.
        session: caches the data that the command has read.
        frames: which frames of a file are inputs; None for all of videos, and the first of other files.
    """

    input: str | Sequence[str]
    key: str | None
    label: Label
    seed: int
    session: DataSession
    frames: Literal["first", "all"] | None = None

    @property
    def paths(self) -> list[str]:
        """The files or folders, as typed."""
        return [self.input] if isinstance(self.input, str) else list(self.input)

    @property
    def suffixes(self) -> list[str]:
        """The suffix of every file."""
        return [Path(path).suffix for path in self.paths]

    @property
    def kind(self) -> str:
        """Whether a "split", a "folder", "images", "audio" or an "array" is meant.

        Raises:
            UsageError: there is no such split or file, or its suffix is unknown.
        """
        if self.input in SPLITS:
            return "split"
        errors, kinds = list[ErrorDetail](), set[str]()
        for path in map(Path, self.paths):
            suffix = path.suffix.lower()
            known = next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), "")
            kinds.add("folder" if path.is_dir() else known)
            if not path.exists():
                what = f"no such file or folder, and no split ({', '.join(SPLITS)})"
                errors.append(ErrorDetail(f"input={path}", what))
            elif not path.is_dir() and not known:
                wanted = " ".join(suffix[1:] for suffixes in SUFFIXES.values() for suffix in suffixes)
                errors.append(ErrorDetail(f"input={path}", f"is not a folder or a file that ends in {wanted}"))
        if errors:
            raise UsageError(errors)
        if not kinds:
            raise UsageError([ErrorDetail("input=[]", "is empty; name a split, a folder or files")])
        if len(self.paths) > 1 and (len(kinds) > 1 or not kinds <= SEVERAL):
            raise UsageError([ErrorDetail("input=", "several inputs must all be image files, or all audio files")])
        return kinds.pop()

    def listing(self, kind: FileKind, otherwise: FileKind | None = None) -> Listing:
        """The files as typed, or those of a folder, see `list_folder`.

        Raises:
            UsageError: the folder has no such file.
        """
        if self.kind == "folder":
            return list_folder(self.paths[0], kind, otherwise)
        return list_files(list(map(Path, self.paths)))

    def noise(self) -> Noise:
        """The noise: that of `vae eval` for a split, else keyed by the position in the sorted input."""
        return Noise(self.seed, "judge", str(self.input) if self.kind == "split" else "input")


def numbered(count: int) -> list[str]:
    """The numbers of `count` images as names of the same length."""
    width = max(5, len(str(count - 1)))
    return [f"{number:0{width}d}" for number in range(count)]
