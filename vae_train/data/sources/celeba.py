"""CelebA: 202,599 faces of celebrities with 40 attributes, aligned, in colour (Liu et al., 2015)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from typing_extensions import override

from vae_train.batch import SPLITS, DataFacts, Factor, Split, evenly_spaced
from vae_train.data.sources.base import Contents, Source, open_torchvision
from vae_train.data.storage.cache import decoded
from vae_train.data.storage.decoding import BadImage, Decoding, headers
from vae_train.data.storage.library_messages import quiet
from vae_train.data.storage.listing import Entry, list_folder
from vae_train.data.storage.stored import split_rows
from vae_train.util.errors import UsageError
from vae_train.util.ranges import PositiveInt, Range

NUM_HEADERS = 64
"""Number of images whose size is checked."""

WIDTH, HEIGHT = 178, 218
"""Size of an aligned image in pixels."""

IMAGES, PARTITION, ATTRIBUTES = "img_align_celeba", "list_eval_partition.txt", "list_attr_celeba.txt"

NAMES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose"),
    *("Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses"),
    *("Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks"),
    *("Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick"),
    *("Wearing_Necklace", "Wearing_Necktie", "Young"),
)


@dataclass(frozen=True)
class CelebA(Source):
    """The aligned images in the official partition of 162,770 / 19,867 / 19,962 images.

    A centre crop is downscaled bilinearly, with antialiasing; `crop` 148 and `size`
    64 are the literature's ("Deep Feature Consistent Variational Autoencoder", arXiv:1610.00291, and others). All
    images are decoded once into a file, which is mapped into memory afterwards.

    Labels have a column for every attribute, with values 0 and 1.

    Args:
        root: folder that contains `celeba` with `img_align_celeba`, `list_eval_partition.txt` and
            `list_attr_celeba.txt`; missing files are downloaded to it, for which torchvision needs the package gdown.
        crop: side of the square centre crop from 178x218, in pixels.
        size: height and width after scaling.
        cache: folder of the decoded images; None for the user's own (XDG_CACHE_HOME, else ~/.cache).
    """

    root: str
    crop: Annotated[int, Range(1, WIDTH)]
    size: PositiveInt
    cache: str | None
    sizes: ClassVar[dict[Split, int]] = {"train": 162_770, "valid": 19_867, "test": 19_962}

    @override
    def inspect(self) -> DataFacts:
        factors = tuple(Factor(name, 2, ("no", "yes")) for name in NAMES)
        return DataFacts((3, self.size, self.size), 256, self.sizes["train"], factors)

    @override
    def read(self) -> Contents:
        folder = Path(self.root) / "celeba"
        if not all((folder / name).exists() for name in (IMAGES, PARTITION, ATTRIBUTES)):
            open_torchvision("CelebA", self.root, "celeba", {"split": "all"})
        names, parts = self._partition(folder / PARTITION)
        labels = _attributes(folder / ATTRIBUTES, names)
        pixels = _decoded(folder / IMAGES, names, self.crop, self.size, self.cache)
        rows = {name: np.flatnonzero(parts == number) for number, name in enumerate(SPLITS)}
        return Contents(split_rows(pixels, rows, 256, labels))

    def _partition(self, path: Path) -> tuple[list[str], np.ndarray]:
        """Reads the names of all images, and the indices of their splits with shape `(N,)`.

        Raises:
            UsageError: the file is damaged or not the official one.
        """
        table = _table(path, [("name", "U32"), ("part", np.int8)], skipped=0)
        sizes: dict[Split, int] = {name: int((table["part"] == number).sum()) for number, name in enumerate(SPLITS)}
        if sizes != self.sizes or len(table) != sum(self.sizes.values()):
            listed, published = (" / ".join(f"{count:,}" for count in each.values()) for each in (sizes, self.sizes))
            raise UsageError(f"{path} lists {listed} images, not {published}: put the original file there")
        return table["name"].tolist(), table["part"]


def _attributes(path: Path, names: list[str]) -> torch.Tensor:
    """Reads the attributes of all images, int64 with shape `(N, 40)`; the file's -1 is 0.

    Raises:
        UsageError: the file is damaged, or does not belong to the images `names`.
    """
    table = _table(path, [("name", "U32"), ("values", np.int8, (len(NAMES),))], skipped=2)
    with path.open(errors="replace") as file:
        header = tuple((file.readline(), file.readline())[1].split())
    if header != NAMES or table["name"].tolist() != names or not np.isin(table["values"], (-1, 1)).all():
        raise UsageError(f"{path} is damaged or does not match {PARTITION}; put the original file there")
    return torch.from_numpy((table["values"] > 0).astype(np.int64))


def _table(path: Path, columns: list, skipped: int) -> np.ndarray:
    """Reads a text file of columns, without its first `skipped` lines, as a structured array `(N,)`."""
    try:
        with quiet():  # NumPy warns about empty files; the length is checked
            return np.atleast_1d(np.loadtxt(path, columns, skiprows=skipped))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read CelebA in {path}: {error}; put the original file there") from error


def _decoded(folder: Path, names: list[str], crop: int, size: int, cache: str | None) -> np.ndarray:
    """Decodes the images `names` into a uint8 array `(N, 3, size, size)`, mapped from a file.

    Raises:
        UsageError: an image is missing or damaged, or the file cannot be written.
    """
    found = {entry.name: entry for entry in list_folder(str(folder)).entries}
    entries = [found.get(name) or Entry(name, -1, -1, "No such file or directory") for name in names]
    for number in evenly_spaced(len(names), NUM_HEADERS).tolist():
        path, problem = folder / names[number], entries[number].problem
        try:
            height, width = headers(path)[0].size
        except BadImage as error:
            raise UsageError(f"cannot read CelebA's {path}: {problem or error}; put the original file there") from error
        if (height, width) != (HEIGHT, WIDTH):
            raise UsageError(f"{path} has {height}x{width} pixels, not {HEIGHT}x{WIDTH}; use the aligned images")
    how = Decoding((size, size), 3, "stretch", (crop, crop), "bilinear", "black")
    pixels, bad, *_ = decoded(folder, entries, how, cache)
    for number, why in bad.items():
        raise UsageError(f"cannot read CelebA's {folder / names[number]}: {why}; put the original file there")
    return pixels
