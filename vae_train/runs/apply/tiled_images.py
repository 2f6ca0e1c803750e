"""Image files of any size as inputs of a fully convolutional model, which is applied to them in tiles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Fetched
from vae_train.data.dataset import TransformedImages
from vae_train.data.storage.decoding import BadImage, Decoding, decode, headers
from vae_train.data.storage.listing import IMAGES
from vae_train.data.storage.rescaled import RescaledStore
from vae_train.data.storage.stored import StoredImages
from vae_train.evaluation.tiles import Size
from vae_train.model.base import SingleLatent
from vae_train.rng import Rng
from vae_train.runs.apply.files import decoding_of
from vae_train.runs.apply.inputs import Inputs, Request, Tiles
from vae_train.runs.apply.labels import given_labels
from vae_train.runs.apply.names import part_names
from vae_train.runs.apply.pixel_scale import PixelScale
from vae_train.runs.build import Builder, build_model
from vae_train.runs.run import Run
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError, collecting

Tile = Literal["auto"] | int

UNUSED = "prior."
"""Beginning of the names of weights that do not take part in reconstructions."""


class ImageFile(NamedTuple):
    """An image file."""

    path: Path
    how: Decoding
    """How it is decoded, at its own size."""
    scale: PixelScale
    """The scale of its pixels."""


class ImageFiles(Fetched):
    """Images of different sizes, which are decoded one at a time.

    Args:
        files: the files.
        y: the condition of every image `(N, F)`; None for none.
        model: the model.
    """

    def __init__(self, files: list[ImageFile], y: Tensor | None, model: TrainedModel) -> None:
        self.files, self.y, self.model = files, y, model

    @override
    def __len__(self) -> int:
        return len(self.files)

    @override
    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        """One image as a batch."""
        number = int(index.item())
        path, how, scale = self.files[number]
        pixels = decode(path, how).pixels[None]
        store = RescaledStore(pixels, np.zeros(1, np.int64), "NCHW", scale.low, scale.high, scale.levels)
        y = None if self.y is None else self.y[number : number + 1]
        stored = StoredImages(store, scale.levels, y, scale.stochastic)
        images = TransformedImages(stored, self.model.device, self.model.input_transforms)
        return images.fetch(torch.zeros(1, dtype=torch.int64, device=self.model.device), rng)


def open_tiled_images(
    request: Request, model: TrainedModel, run: Run, builder: Builder, tile: Tile, overlap: int | None
) -> Inputs:
    """Opens image files at their own sizes, and the model for tiles of them.

    Args:
        request: what to open.
        model: the model.
        run: the run of the model.
        builder: locates classes.
        tile: side of the tiles in pixels; "auto" for the size of the training images.
        overlap: pixels that neighbouring tiles share; None for a quarter of a tile.

    Raises:
        UsageError: the inputs are not image files, or the model is not fully convolutional.
    """
    facts, where = model.facts, f"tile={tile}"
    if request.kind not in ("folder", "images") or facts.levels is None or facts.data_shape[0] not in (1, 3):
        raise UsageError([ErrorDetail(where, "needs a model of images, and image files or a folder of them")])
    tiles = _tiles(model, run, builder, tile, overlap, where)
    errors = list[ErrorDetail]()
    with collecting(errors, f"input={','.join(request.paths)}"):
        listing = request.listing(IMAGES)
        names = part_names([entry.name for entry in listing.entries], np.arange(len(listing.entries)), "frame")
        y, classes = given_labels(request.label, listing.classes(range(len(names))), len(names), model)
    if errors:
        raise UsageError(errors)
    how, scale = decoding_of(facts, run.config), PixelScale.of(facts, run.config)
    files, rows, bad = list[ImageFile](), list[int](), list[tuple[str, str]]()
    for row, entry in enumerate(listing.entries):
        path = listing.root / entry.name
        try:
            own = Decoding(headers(path)[0].size, how.channels, how.fit, None, how.resample, how.background)
            bits = decode(path, own).bits
        except BadImage as error:
            bad.append((names[row], str(error)))
            continue
        files.append(ImageFile(path, own, scale.of_files(max(bits, 8))))
        rows.append(row)
    size = "x".join(map(str, tiles.size))
    return Inputs(
        ImageFiles(files, None if y is None else y[rows], model),
        names=[names[row] for row in rows],
        classes=None if classes is None else [classes[row] for row in rows],
        title=Path(request.paths[0]).absolute().stem if len(request.paths) == 1 else "images",
        noise=request.noise(),
        notes=(*listing.left_out, f"images keep their size; tiles of {size} pixels overlap by {tiles.overlap[0]}"),
        bad_files=tuple(bad),
        tiles=tiles,
    )


def _tiles(model: TrainedModel, run: Run, builder: Builder, tile: Tile, overlap: int | None, where: str) -> Tiles:
    """The model for tiles.

    Raises:
        UsageError: the model is not fully convolutional, or cannot have tiles of this size.
    """
    single, sides = model.model, model.facts.data_shape[1:]
    if not isinstance(single, SingleLatent) or len(single.latent_shape) != 3:
        what = "latent vectors" if isinstance(single, SingleLatent) else "several layers of latents"
        reason = f"needs a fully convolutional model with one map of latents; this one has {what}{_scaled(sides)}"
        raise UsageError([ErrorDetail(where, reason)])
    latents = single.latent_shape[1:]
    # The smallest steps in which image and latents grow together.
    grains = [side // math.gcd(side, latent) for side, latent in zip(sides, latents, strict=True)]
    size = (sides[0], sides[1]) if tile == "auto" else (tile, tile)
    if any(side % grain for side, grain in zip(size, grains, strict=True)):
        grain = math.lcm(*grains)
        raise UsageError(
            [ErrorDetail(where, f"must be a multiple of {grain}; use tile={max(1, size[0] // grain) * grain}")]
        )
    doubled = _resized(single, model, run, builder, (2 * sides[0], 2 * sides[1]), torch.device("meta"))
    if fixed := _different(single, doubled):
        reason = f"needs a fully convolutional model, but {fixed} depends on the size of the images{_scaled(sides)}"
        raise UsageError([ErrorDetail(where, reason)])
    shared = (size[0] // 4, size[1] // 4) if overlap is None else (overlap, overlap)
    if any(2 * pixels > side for pixels, side in zip(shared, size, strict=True)):
        raise UsageError([ErrorDetail(f"overlap={overlap}", f"exceeds half of a tile of {size[0]}x{size[1]} pixels")])
    if size == tuple(sides):
        return Tiles(single, size, shared)
    resized = _resized(single, model, run, builder, size, model.device)
    weights = {name: value for name, value in single.state_dict().items() if not name.startswith(UNUSED)}
    resized.load_state_dict(weights, strict=False)
    return Tiles(resized.eval(), size, shared)


def _scaled(sides: tuple[int, ...]) -> str:
    return f"; use tile=null, which scales images to {sides[0]}x{sides[1]}"


def _resized(
    single: SingleLatent, model: TrainedModel, run: Run, builder: Builder, size: Size, device: torch.device
) -> SingleLatent:
    """The architecture of a model for images of another size, with initial weights."""
    channels, *sides = single.data_shape
    latent_shape = [single.latent_shape[0]]
    latent_shape += [n * new // old for n, new, old in zip(single.latent_shape[1:], size, sides, strict=True)]
    config = run.config.with_values({"model.latent_shape": latent_shape})
    facts = model.transforms.facts(model.facts)._replace(data_shape=(channels, *size))
    with device:
        resized = build_model(config, facts, device, builder)
    assert isinstance(resized, SingleLatent)
    return resized


def _different(one: SingleLatent, other: SingleLatent) -> str | None:
    """A weight whose shape differs between two models, or that only one has."""
    shapes, others = ({name: value.shape for name, value in each.state_dict().items()} for each in (one, other))
    names = (name for name in {**shapes, **others} if not name.startswith(UNUSED))
    return next((name for name in names if shapes.get(name) != others.get(name)), None)
