"""Omniglot: 32,460 handwritten characters of 50 alphabets, in grey and at any size (Lake et al., 2015)."""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from typing_extensions import override

from vae_train.batch import DataFacts
from vae_train.data.sources.base import Arrays, PublishedSource, class_facts, open_torchvision
from vae_train.util.errors import UsageError
from vae_train.util.ranges import Range

SIDE = 105
"""Side of the original images in pixels."""

MAX_UNPACKED_BYTES = 2**28
"""Limit of the unpacked size; the published archives have 1e7 bytes."""


@dataclass(frozen=True)
class Omniglot(PublishedSource):
    """Omniglot as its authors publish it, split into 17,280 / 2,000 / 13,180 images.

    Training and validation images are from the "background" set, split by a stored seed; test images are the
    "evaluation" set, which has other alphabets and the labels 964 to 1,622. Strokes are bright, unlike in the files.

    Results are NOT comparable with those of the literature's 28x28 Omniglot, `chardata.mat` of "Importance Weighted
    Autoencoders" (arXiv:1509.00519): 24,345 training and 8,070 test images, which were cropped and scaled differently.

    Args:
        root: folder that contains `omniglot-py`; missing files are downloaded to it.
        size: height and width; every pixel is the mean of its area in the original 105x105 image, which
            is black and white.
        binarize: see `vae_train.data.sources.base.Binarize`.
    """

    size: Annotated[int, Range(1, SIDE)]
    num_characters: ClassVar[dict[str, int]] = {"background": 964, "evaluation": 659}
    num_drawings: ClassVar[int] = 20
    """Number of images per character."""
    num_valid: ClassVar[int] = 2000

    @override
    def inspect(self) -> DataFacts:
        num_train = self.num_characters["background"] * self.num_drawings - self.num_valid
        return class_facts((1, self.size, self.size), num_train, sum(self.num_characters.values()), self.binarize)

    @override
    def open(self, train: bool) -> Arrays:
        """Reads the images of one set, in alphabetical order, from the archive that torchvision downloads.

        torchvision itself uses the order of directory entries, which differs between machines.
        """
        part, first = ("background", 0) if train else ("evaluation", self.num_characters["background"])
        path = Path(self.root) / f"omniglot-py/images_{part}.zip"
        files = _read_zip(path)
        if files is None:
            open_torchvision("Omniglot", self.root, f"omniglot-py/{path.name}", {"background": train})
            files = _read_zip(path)
        expected = self.num_characters[part] * self.num_drawings
        if files is None or len(files) != expected:
            raise UsageError(
                f"{path} has {len(files or ()):,} images, not {expected:,}; remove it to download it again"
            )
        labels = np.unique([str(Path(file).parent) for file in files], return_inverse=True)[1]
        return Arrays(self._decoded(path, files), labels + first)

    def _decoded(self, path: Path, files: dict[str, bytes]) -> np.ndarray:
        pixels = np.empty((len(files), 1, self.size, self.size), np.uint8)
        for number, (name, content) in enumerate(files.items()):
            try:
                with Image.open(io.BytesIO(content)) as file:
                    drawing = file.convert("L").resize((self.size, self.size), Image.Resampling.BOX)
                pixels[number, 0] = 255 - np.asarray(drawing)  # bright on dark
            except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
                raise UsageError(f"cannot read {name} in {path}: {error}; remove it to download it again") from error
        return pixels


def _read_zip(path: Path) -> dict[str, bytes] | None:
    """The PNG files of an archive by name, in alphabetical order; None if it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED_BYTES:
                return None
            names = sorted(n for n in archive.namelist() if n.startswith(f"{path.stem}/") and n.endswith(".png"))
            return {name: archive.read(name) for name in names}
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
        return None
