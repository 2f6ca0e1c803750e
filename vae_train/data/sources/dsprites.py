"""dSprites: 737,280 binary images of 64x64 pixels, one for every value of six factors (Matthey et al., 2017)."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from typing_extensions import override

from vae_train.batch import Factor
from vae_train.data.dataset import Dataset
from vae_train.data.storage.cache import cache_folder
from vae_train.data.storage.published import mapped, replacing, unavailable
from vae_train.data.storage.splits import shuffled
from vae_train.data.storage.stored import ArrayImages, Hosted
from vae_train.util.errors import UsageError
from vae_train.util.ranges import NonNegativeInt

SPLIT_SEED = 123

NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
URL = f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{NAME}"
TIMEOUT = 60  # seconds without a byte

FACTORS = (
    Factor("color", 1, ("white",)),
    Factor("shape", 3, ("square", "ellipse", "heart")),
    Factor("scale", 6, tuple(np.linspace(0.5, 1, 6).tolist())),
    Factor("orientation", 40, tuple(np.linspace(0, 2 * np.pi, 40).tolist())),
    Factor("posX", 32, tuple(np.linspace(0, 1, 32).tolist())),
    Factor("posY", 32, tuple(np.linspace(0, 1, 32).tolist())),
)
SIZES = tuple(factor.size for factor in FACTORS)
"""Every combination is there once, the last factor varying fastest."""


class DSprites(Dataset):
    """dSprites with its factors as labels, split by a stored seed.

    The pixels take up 3 GiB: they are unpacked once into a file, which later starts map into memory.

    Args:
        root: folder that has `dsprites`; the file is downloaded to it where it is missing.
        num_valid: images that validate; 0 for no such split.
        num_test: images that test; 0 for no such split. All others are for training.
        cache: folder of the unpacked pixels; None for the user's own (XDG_CACHE_HOME, else ~/.cache).
    """

    def __init__(self, root: str, num_valid: NonNegativeInt, num_test: NonNegativeInt, cache: str | None) -> None:
        super().__init__()
        self.root, self.num_valid, self.num_test, self.cache = root, num_valid, num_test, cache_folder(cache)
        self.shape, self.levels = (1, 64, 64), 2
        self.factors, self.classes = FACTORS, FACTORS[0].size
        self.total = int(np.prod(SIZES))
        self.num_train = self.total - num_valid - num_test
        if self.num_train < 1:
            raise ValueError(f"num_valid={num_valid} and num_test={num_test} leave none of {self.total:,} to train on")

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        path = Path(self.root) / "dsprites" / NAME
        if not path.is_file():
            _download(path)
        pixels, labels = _open(path, self.cache)
        self._check(path, pixels, labels)
        order = shuffled(len(pixels), SPLIT_SEED)
        cuts = np.cumsum([self.num_train, self.num_valid])
        rows = dict(zip(("train", "valid", "test"), np.split(order, cuts), strict=True))
        return {name: _images(pixels, labels, numbers) for name, numbers in rows.items()}

    def _check(self, path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
        """The factors of all images are known, so that a file with others is not dSprites."""
        expected = np.stack(np.unravel_index(np.arange(self.total), SIZES), 1)
        if len(pixels) != self.total or pixels.dtype != np.uint8 or not np.array_equal(labels, expected):
            raise UsageError(f"{path} has other images than dSprites; remove it to download it again")


def _images(pixels: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> ArrayImages | None:
    """The images with the numbers `rows`; None where these are none."""
    if not len(rows):
        return None
    rows = np.sort(rows)
    return ArrayImages(Hosted(pixels, rows, "NHW"), 2, torch.from_numpy(labels[rows].astype(np.int64)))


def _open(path: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, `(N, 64, 64)` uint8 mapped from a file, and classes of the factors, `(N, 6)`.

    Only these two members of the archive are read; its metadata would have to be unpickled.

    Raises:
        UsageError: the archive is damaged, or the pixels cannot be unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("latents_classes.npy") as member:
                labels = np.lib.format.read_array(member, allow_pickle=False)
            place = cache / f"dsprites-{archive.getinfo('imgs.npy').CRC:08x}.npy"
            pixels = mapped(place)
            if pixels is None:
                _unpack(archive, place)
                pixels = np.load(place, mmap_mode="r")
        return pixels, labels
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"cannot read dSprites in {path}: {error}; remove it to download it again") from error


def _unpack(archive: zipfile.ZipFile, place: Path) -> None:
    try:
        with replacing(place) as file, archive.open("imgs.npy") as member:
            shutil.copyfileobj(member, file, 1 << 20)
    except OSError as error:
        raise UsageError(
            f"the pixels of dSprites (3 GiB) could not be written to {place.parent} ({error.strerror or error}); "
            "data.cache= names another folder"
        ) from error


def _download(path: Path) -> None:
    """Fetches the archive, 26 MB.

    Raises:
        UsageError: it cannot be fetched; says where to put it.
    """
    try:
        with urlopen(URL, timeout=TIMEOUT) as answer, replacing(path) as file:
            shutil.copyfileobj(answer, file)
            file.flush()
            if not zipfile.is_zipfile(file.name):
                raise OSError("what came is not the archive")
    except Exception as error:
        raise UsageError(unavailable("dSprites", path.parent, "dsprites", error, URL)) from error
