"""dSprites: 737,280 binary images of 64x64 pixels, one for every value of six factors (Matthey et al., 2017)."""

import math
import os
import shutil
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

import numpy as np
import torch
from typing_extensions import override

from vae_train.batch import SPLITS, DataFacts, Factor
from vae_train.data.sources.base import SPLIT_SEED, Contents, Source, check_download, unavailable
from vae_train.data.storage.cache_place import cache_folder, writing_cache
from vae_train.data.storage.stored import shuffled, split_rows
from vae_train.util.errors import UsageError
from vae_train.util.files import SavedPath, replacing
from vae_train.util.ranges import NonNegativeInt
from vae_train.util.text import size

NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
URL = f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{NAME}"
TIMEOUT = 60  # seconds without a byte

MAX_UNPACKED_BYTES = 2**32
"""Limit of the unpacked size; the published archive has 3.1e9 bytes."""

FACTORS = (
    Factor("color", 1, ("white",)),
    Factor("shape", 3, ("square", "ellipse", "heart")),
    Factor("scale", 6, tuple(np.linspace(0.5, 1, 6).tolist())),
    Factor("orientation", 40, tuple(np.linspace(0, 2 * np.pi, 40).tolist())),
    Factor("posX", 32, tuple(np.linspace(0, 1, 32).tolist())),
    Factor("posY", 32, tuple(np.linspace(0, 1, 32).tolist())),
)


@dataclass(frozen=True)
class DSprites(Source):
    """dSprites with its factors as labels, split by a stored seed.

    The pixels take 3 GiB. They are unpacked once into a file, which is mapped into memory afterwards.

    Args:
        root: folder that contains `dsprites`; the missing file is downloaded to it.
        num_valid: number of validation images; 0 for no such split.
        num_test: number of test images; 0 for no such split. All other images are for training.
        cache: folder of the unpacked pixels; None for the user's own (XDG_CACHE_HOME, else ~/.cache).
    """

    root: str
    num_valid: NonNegativeInt
    num_test: NonNegativeInt
    cache: str | None
    factors: ClassVar[tuple[Factor, ...]] = FACTORS
    """The archive has every combination once; the last factor varies fastest."""

    def __post_init__(self) -> None:
        if self.num_valid + self.num_test >= self._num_images:
            counts = f"num_valid={self.num_valid} and num_test={self.num_test}"
            raise ValueError(f"{counts} leave none of the {self._num_images:,} images for training")

    @override
    def inspect(self) -> DataFacts:
        return DataFacts((1, 64, 64), 2, self._num_images - self.num_valid - self.num_test, self.factors)

    @override
    def read(self) -> Contents:
        path = Path(self.root) / "dsprites" / NAME
        if not path.is_file():
            check_download("dSprites", self.root)
            _download(path)
        pixels, labels = _open(path, self.cache)
        sizes = [factor.size for factor in self.factors]  # the order of the combinations is known
        expected = np.stack(np.unravel_index(np.arange(self._num_images), sizes), 1)
        if len(pixels) != len(expected) or pixels.dtype != np.uint8 or not np.array_equal(labels, expected):
            raise UsageError(f"{path} does not contain dSprites; remove it to download it again")
        order, num_train = shuffled(len(pixels), SPLIT_SEED), self.inspect().num_train
        parts = np.split(order, [num_train, num_train + self.num_valid])
        rows = dict(zip(SPLITS, map(np.sort, parts), strict=True))
        return Contents(split_rows(pixels, rows, 2, torch.from_numpy(labels.astype(np.int64)), layout="NHW"))

    @property
    def _num_images(self) -> int:
        return math.prod(factor.size for factor in self.factors)


def _open(path: Path, cache: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Opens pixels, `(N, 64, 64)` uint8 mapped from a file, and values of the factors, `(N, 6)`.

    Only these two members of the archive are read, since its metadata is pickled.

    Raises:
        UsageError: the archive is damaged, or the pixels cannot be unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (unpacked := sum(member.file_size for member in archive.infolist())) > MAX_UNPACKED_BYTES:
                raise ValueError(f"it unpacks to {size(unpacked)}")
            with archive.open("latents_classes.npy") as member:
                labels = np.lib.format.read_array(member, allow_pickle=False)
            name = f"dsprites-{archive.getinfo('imgs.npy').CRC:08x}.npy"
            saved = [Path(os.path.expanduser(cache)) / name] if isinstance(cache, SavedPath) else []
            return _pixels(archive, [*saved, cache_folder(cache) / name]), labels
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"cannot read dSprites in {path}: {error}; remove it to download it again") from error


def _pixels(archive: zipfile.ZipFile, places: list[Path]) -> np.ndarray:
    """Maps the first intact file of `places`; if there is none, unpacks the pixels to the last one."""
    for place in places:
        with suppress(OSError, ValueError, EOFError):
            return np.load(place, mmap_mode="r")
    with (
        writing_cache("the pixels of dSprites (3 GiB)", place.parent),
        replacing(place) as file,
        archive.open("imgs.npy") as member,
    ):
        shutil.copyfileobj(member, file, 1 << 20)
    return np.load(place, mmap_mode="r")


def _download(path: Path) -> None:
    """Downloads the archive (26 MB).

    Raises:
        UsageError: the download failed; says where to put the file.
    """
    try:
        with urlopen(URL, timeout=TIMEOUT) as answer:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                shutil.copyfileobj(answer, file)
                file.flush()
                if not zipfile.is_zipfile(file.name):
                    raise OSError("the download is not a zip archive")
    except Exception as error:
        raise UsageError(unavailable("dSprites", path.parent, "dsprites", error, URL)) from error
