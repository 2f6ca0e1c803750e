"""Image files as inputs of a trained model: decoded, scaled and cropped as its training images were."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vae_train.batch import DataFacts
from vae_train.data.dataset import TransformedImages
from vae_train.data.storage.cache import DecodedFolder, decoded
from vae_train.data.storage.decoding import Decoding
from vae_train.data.storage.dropped import sentences
from vae_train.data.storage.headers import FileHeaders
from vae_train.data.storage.listing import IMAGES, VIDEOS, Entry
from vae_train.data.storage.rescaled import RescaledStore
from vae_train.data.storage.stored import StoredImages
from vae_train.runs.apply.frames import frame_recordings, list_frames, recording_notes, skipped_notes
from vae_train.runs.apply.inputs import Inputs, Request
from vae_train.runs.apply.labels import given_labels
from vae_train.runs.apply.names import part_names
from vae_train.runs.apply.pixel_scale import PixelScale
from vae_train.runs.config import Config
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError, collecting

BYTE_BITS = 8

MAX_IN_MEMORY = 2**26
"""Pixel values above which decoded images are kept in the user's cache."""


def open_images(request: Request, model: TrainedModel, config: Config) -> Inputs:
    """Opens a folder of images or videos, recursively, or such files in the given order.

    Args:
        request: what to open.
        model: the model, whose size, channels and levels the images are brought to.
        config: the run's configuration, which says how.

    Raises:
        UsageError: no image can be read, the model does not take images, or a label is missing.
    """
    facts, where = model.facts, f"input={','.join(request.paths)}"
    if facts.units is not None or facts.levels is None or facts.data_shape[0] not in (1, 3):
        what = f"this model was trained on the numbers of an array file, {_shape(facts)}; give an array file"
        raise UsageError([ErrorDetail(where, what)])
    errors = list[ErrorDetail]()
    with collecting(errors, where):
        listing, cache = request.listing(IMAGES, VIDEOS), config.at("data.cache")
        frames = list_frames(listing, request.frames, cache)
        how = replace(decoding_of(facts, config), every_frame=frames.every_frame)
        notes = _size_notes([frames.headers[file][:1] for file in frames.files], how) + skipped_notes(frames)
        images = _decoded(listing.root, frames.entries, how, cache)
        y, classes = given_labels(request.label, listing.classes(frames.files), len(frames.entries), model)
        rows = np.setdiff1d(np.arange(len(frames.entries)), list(images.bad))
        files = [entry.name for entry in listing.entries]
        recordings = frame_recordings(listing.root, files, frames.files[rows])
        notes += recording_notes(listing.root, recordings, how.size)
    if errors:
        raise UsageError(errors)
    scale = PixelScale.of(facts, config).of_files(images.depths.bits)
    store = RescaledStore(images.pixels, rows, "NCHW", scale.low, scale.high, scale.levels)
    stored = StoredImages(store, scale.levels, None if y is None else y[torch.from_numpy(rows)], scale.stochastic)
    notes += _depth_note(images.depths.bits, scale.levels)
    dropped = sentences(images.dropped, how.background, "x".join(map(str, how.size)))
    names = part_names(files, frames.files, "frame")
    return Inputs(
        TransformedImages(stored, model.device, model.input_transforms),
        names=[names[row] for row in rows],
        classes=None if classes is None else [classes[row] for row in rows],
        title=_title(request),
        noise=request.noise(),
        notes=(*listing.left_out, *notes, *dropped, *filter(None, [scale.note])),
        bad_files=tuple((names[row], why) for row, why in sorted(images.bad.items())),
        recordings=recordings,
    )


def _decoded(root: Path, entries: Sequence[Entry], how: Decoding, cache: str | None) -> DecodedFolder:
    """The images of a folder; a few are decoded into memory, others into the user's cache."""
    if len(entries) * math.prod(how.shape) > MAX_IN_MEMORY:
        return decoded(root, entries, how, cache)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        images = decoded(root, entries, how, folder)
        return images._replace(pixels=np.array(images.pixels))


def _title(request: Request) -> str:
    path = Path(request.paths[0]).absolute()
    return "images" if len(request.paths) > 1 else path.name if request.kind == "folder" else path.stem


def decoding_of(facts: DataFacts, config: Config) -> Decoding:
    """How the run's own images were decoded, with the size and channels of the model."""
    channels, height, width = facts.data_shape

    def setting(name: str, default: Any) -> Any:
        return config.at(f"data.{name}") or default

    crop = setting("crop", None)
    crop = (crop, crop) if isinstance(crop, int) else tuple(crop) if crop is not None else None
    fit, resample, background = setting("fit", "crop"), setting("resample", "bicubic"), setting("background", "black")
    return Decoding((height, width), channels, fit, crop, resample, background)


def _size_notes(files: Sequence[FileHeaders], how: Decoding) -> list[str]:
    """Notes about images of other sizes, and about grey images for a model of colours."""
    headers, notes = [frames[0] for frames in files if frames], list[str]()
    if other := [header.size for header in headers if header.size != how.size]:
        sizes = ["x".join(map(str, size)) for size in (how.size, other[0])]
        notes.append(f"{len(other):,} of {len(files):,} images are scaled to {sizes[0]} (one of them from {sizes[1]})")
    if how.channels > 1 and (grey := sum(header.grey for header in headers)):
        notes.append(f"{grey:,} of {len(files):,} images are grey and become RGB")
    return notes


def _depth_note(bits: int, levels: int) -> list[str]:
    """A note about pixels with more or fewer bits than the model's."""
    if (bits > BYTE_BITS) == (levels > 2**BYTE_BITS):
        return []
    return [f"pixels of {max(bits, BYTE_BITS)} bits are scaled to the {levels:,} levels of the model"]


def _shape(facts: DataFacts) -> str:
    return f"with shape ({', '.join(map(str, facts.data_shape))})"
