"""Omniglot: 32,460 handwritten characters of 50 alphabets, in grey and at any size (Lake et al., 2015)."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.storage.published import Arrays, open_torchvision, stored_split
from vae_train.data.storage.stored import ArrayImages, Binarize
from vae_train.util.errors import UsageError
from vae_train.util.ranges import Range

SPLIT_SEED = 123

SIDE = 105
"""Pixels of the originals along each side."""

CHARACTERS = {"background": 964, "evaluation": 659}
DRAWINGS = 20
"""Images of every character."""

NUM_TRAIN = 17_280


class Omniglot(Dataset):
    """Omniglot as its authors publish it, split into 17,280 / 2,000 / 13,180 images.

    Training and validation images are of the "background" set, cut by a stored seed; test images are the "evaluation"
    set, whose alphabets are others: its labels are 964 to 1,622. Strokes are bright, unlike in the files.

    Figures are NOT comparable with those of the literature's 28x28 Omniglot, `chardata.mat` of Burda et al. (2016):
    24,345 training and 8,070 test images, which were cut and scaled otherwise.

    Args:
        root: folder that has `omniglot-py`; the files are downloaded to it where they are missing.
        size: height and width; every pixel is the mean of the area that it covers in the original's 105x105, which
            is black and white.
        binarize: see `vae_train.data.sources.digits.Digits`.
    """

    def __init__(self, root: str, size: Annotated[int, Range(1, SIDE)], binarize: Binarize) -> None:
        super().__init__()
        self.root, self.size, self.binarize = root, size, binarize
        self.shape, self.classes = (1, size, size), sum(CHARACTERS.values())
        self.levels = 256 if binarize == "none" else 2
        self.num_train = NUM_TRAIN

    @override
    def read(self) -> dict[str, ArrayImages | None]:
        train, test = self._open("background"), self._open("evaluation")
        test.labels += CHARACTERS["background"]
        return stored_split(train, test, self.num_train, SPLIT_SEED, 256, self.binarize)

    def _open(self, part: str) -> Arrays:
        """The images of one set, in alphabetical order, from the archive that torchvision leaves beside the folder.

        torchvision takes the order of the folder's entries, which is another one on every machine.
        """
        place = Path(self.root) / f"omniglot-py/images_{part}.zip"
        found = _read_zip(place)
        if found is None:
            where = {"background": part == "background"}
            open_torchvision("Omniglot", self.root, f"omniglot-py/{place.name}", where)
            found = _read_zip(place)
        if found is None or len(found) != CHARACTERS[part] * DRAWINGS:
            raise UsageError(
                f"{place} has {len(found or ()):,} images, not {CHARACTERS[part] * DRAWINGS:,}; remove it to download "
                "it again"
            )
        characters = {name: number for number, name in enumerate(sorted({str(Path(file).parent) for file in found}))}
        labels = [characters[str(Path(file).parent)] for file in found]
        return Arrays(self._decoded(place, found), np.asarray(labels))

    def _decoded(self, place: Path, files: dict[str, bytes]) -> np.ndarray:
        pixels = np.empty((len(files), 1, self.size, self.size), np.uint8)
        for number, (name, content) in enumerate(files.items()):
            try:
                pixels[number, 0] = _drawing(content, self.size)
            except (OSError, ValueError, SyntaxError) as error:  # PIL calls a broken PNG a SyntaxError
                raise UsageError(f"cannot read {name} in {place}: {error}; remove it to download it again") from error
        return pixels


def _read_zip(path: Path) -> dict[str, bytes] | None:
    """The PNG files of an archive by name, in alphabetical order; None where it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if n.startswith(f"{path.stem}/") and n.endswith(".png"))
            return {name: archive.read(name) for name in names}
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
        return None


def _drawing(content: bytes, size: int) -> np.ndarray:
    """A PNG file as uint8 with shape `(size, size)`, bright on dark."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as file:
        return 255 - np.asarray(file.convert("L").resize((size, size), Image.Resampling.BOX))
