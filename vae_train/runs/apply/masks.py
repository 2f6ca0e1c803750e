"""The masks of `vae apply task=inpaint`: by name, or from image files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from vae_train.data.storage.decoding import BadImage, Decoding, decode, headers
from vae_train.data.storage.listing import IMAGES, list_folder
from vae_train.data.transforms.masks import MaskName, seen_pixels
from vae_train.evaluation.inpainting import MaskedImages
from vae_train.runs.apply.files import decoding_of
from vae_train.runs.apply.task import Application
from vae_train.util.errors import ErrorDetail, UsageError, collecting
from vae_train.util.text import did_you_mean

NAMES: tuple[MaskName, ...] = get_args(MaskName)


def masked_images(mask: str | None, application: Application) -> MaskedImages:
    """The inputs of an application with a mask.

    Args:
        mask: a name of `MaskName`, an image file, or a folder with one image for all inputs or one for each; None hides
            missing values alone.
        application: the application.

    Raises:
        UsageError: there is no such mask, an input has none, or nothing would be hidden.
    """
    images = application.inputs.images
    if mask is None:
        if not application.model.facts.missing:
            what = "hides missing values alone, and this model was trained without any (data.missing=mask)"
            raise UsageError([ErrorDetail("mask=null", f"{what}; use one of {', '.join(NAMES)}")])
        return MaskedImages(images, lambda index, x: torch.ones_like(x, dtype=torch.bool))
    if mask in NAMES:
        name: MaskName = mask
        return MaskedImages(images, lambda index, x: seen_pixels(name, x, application.noise("mask", int(index[0]))))
    files = MaskFiles(mask, application)
    return MaskedImages(images, lambda index, x: files.seen(index))


class MaskFiles:
    """Masks in image files, in which white pixels are seen.

    A mask of the model's size is used unchanged. Others are scaled and cropped like images, without interpolation.

    Args:
        path: an image file, or a folder, see `masked_images`.
        application: the application.

    Raises:
        UsageError: there is no such file, or an input has no mask.
    """

    def __init__(self, path: str, application: Application) -> None:
        self.where = f"mask={path}"
        self.files = self._matched(Path(path), application.inputs.names)
        how = decoding_of(application.model.facts, application.run.config)
        self.how = replace(how, channels=1, resample="nearest", background="white")

    def seen(self, index: Tensor) -> Tensor:
        """The masks of images with indices `(B,)`: bool with shape `(B, 1, H, W)`.

        Raises:
            UsageError: a file cannot be read.
        """
        files = [self.files[number if len(self.files) > 1 else 0] for number in index.tolist()]
        masks = {file: self._read(file) for file in dict.fromkeys(files)}
        return torch.from_numpy(np.stack([masks[file] for file in files]))

    def _read(self, file: Path) -> np.ndarray:
        try:
            (header,) = headers(file)
            how = Decoding(self.how.size, 1, "stretch", None, "nearest", "white")
            pixels = decode(file, how if header.size == self.how.size else self.how).pixels
        except BadImage as error:
            raise UsageError([ErrorDetail(self.where, f"{file}: {error}")]) from error
        return pixels.astype(np.float32) > pixels.max() / 2  # some programs write masks as 0 and 1

    def _matched(self, path: Path, names: Sequence[str]) -> list[Path]:
        """The mask of every input, or a single one for all."""
        if path.is_file() and path.suffix.lower() in IMAGES.suffixes:
            return [path]
        if not path.is_dir():
            what = "is not an image file" if path.exists() else f"no such mask{did_you_mean(str(path), NAMES)}"
            raise UsageError([ErrorDetail(self.where, f"{what} (use {', '.join(NAMES)}, a file or a folder)")])
        errors = list[ErrorDetail]()
        with collecting(errors, self.where):
            entries = [entry.name for entry in list_folder(str(path)).entries if entry.problem is None]
        if errors:
            raise UsageError(errors)
        if len(entries) == 1:
            return [path / entries[0]]
        stems = defaultdict[str, list[str]](list)
        for entry in entries:
            stems[_stem(entry)].append(entry)
        exact, found = set(entries), [stems.get(_stem(name), []) for name in names]
        missing = [name for name, files in zip(names, found, strict=True) if not files]
        if missing:
            what = f"has no mask for {len(missing):,} of {len(names):,} images (for instance {missing[0]})"
            raise UsageError([ErrorDetail(self.where, f"{what}; name masks like the images, or give a single one")])
        return [path / (name if name in exact else files[0]) for name, files in zip(names, found, strict=True)]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
