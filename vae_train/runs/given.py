"""Images, labels and latents that a caller gives, as a model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, DataFacts, Fetched, Layout, Units, split_missing
from vae_train.data.dataset import Transforms
from vae_train.data.storage.layouts import file_shape, to_images
from vae_train.distributions.codes import Codebook
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.model.condition import Condition
from vae_train.rng import Rng
from vae_train.runs.labels import class_numbers

Label = int | str | Sequence[int | str] | Sequence[Sequence[int | str]] | np.ndarray | Tensor | None
"""One class for all images, a class for each, or factors of variation `(B, F)`; by name or number. Integers in tensors
and arrays are numbers, even if other classes are called by them."""


class GivenImages(Fetched):
    """Images in the units of the data, which become batches of a model.

    Args:
        x: the images, see `as_images`.
        label: the condition of a conditional model; others ignore it.
        model: the model.
        facts: facts about the data that the model was trained on.
        transforms: transforms between stored images and the model.

    Raises:
        ValueError: shape, type, range or condition do not fit the model.
    """

    def __init__(
        self, x: Any, label: Label, model: LatentVariableModel, facts: DataFacts, transforms: Transforms
    ) -> None:
        self.x, self.facts, self.transforms, self.device = as_images(x, facts), facts, transforms, model.device
        self.bounded = facts.levels is not None or getattr(getattr(model, "likelihood", None), "is_bounded", False)
        self._check_values()
        self.y = condition(label, len(self.x), model.condition, facts, model.device)

    @override
    def __len__(self) -> int:
        return len(self.x)

    @override
    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        levels, preprocessing = self.facts.levels, self.transforms.preprocessing
        x, observed = split_missing(self._in_model_units(self.x[index.to(self.x.device)]).to(self.device))
        if levels is not None:
            x = (x * (levels - 1)).round() / (levels - 1)
        y, units = None if self.y is None else self.y[index], self.transforms.units
        batch = Batch(x, y, mask=observed if self.facts.missing else None)
        batch = batch if preprocessing is None else preprocessing(batch, levels, rng)
        batch = batch._replace(x=torch.where(observed, batch.x, 0.0))
        return batch if units is None or levels is not None else units.with_log_det(batch)

    @property
    def num_observed(self) -> Tensor:
        """The number of values of every image that are not missing, with shape `(B,)`."""
        return (~self.x.isnan()).flatten(1).sum(1) if self.x.is_floating_point() else torch.tensor(self.x[0].numel())

    def _in_model_units(self, x: Tensor) -> Tensor:
        if self.transforms.units is not None:
            return torch.from_numpy(self.transforms.units.to_model(x.cpu().numpy()))
        return x / 255 if x.dtype == torch.uint8 else x.float()

    def _check_values(self) -> None:
        if not self.facts.missing and self.x.is_floating_point() and self.x.isnan().any():
            raise ValueError("x has missing values (NaN), which only models trained with data.missing=mask accept")
        if not self.bounded or not self.x.numel():
            return
        x = split_missing(self._in_model_units(self.x))[0]
        if x.min() < 0 or x.max() > 1:
            found = f"{float(self.x.min()):g} to {float(self.x.max()):g}"
            raise ValueError(f"x has values from {found}, which is out of range: {_range(self.facts.units)}")


def as_images(x: Any, facts: DataFacts) -> Tensor:
    """Images as `(B, C, H, W)`.

    Args:
        x: a tensor or an array of uint8 or floating-point numbers, `(B, C, H, W)` or `(B, H, W, C)`; grey ones also
            `(B, H, W)`. Those of an array file may have its layout, for instance `(B, D)` for vectors.
        facts: facts about the data.

    Raises:
        ValueError: it has another shape or type.
    """
    x = torch.as_tensor(np.require(x, requirements="W") if isinstance(x, np.ndarray) else x)
    shape, layout = facts.data_shape, facts.layout
    if x.dtype != torch.uint8 and not x.is_floating_point() and facts.units is None:
        if x.dtype != torch.bool:
            raise ValueError(f"x has the type {x.dtype}; images are uint8, or floating-point numbers in [0, 1]")
        x = x.float()
    channels, height, width = shape
    layouts: tuple[Layout | None, ...] = (layout, "NHWC", "NHW" if channels == 1 else None)
    for known in layouts:
        if known is not None and x.shape[1:] != shape and x.shape[1:] == file_shape(shape, known):
            x = torch.from_numpy(np.ascontiguousarray(to_images(x.numpy(force=True), known)))
    if x.shape[1:] != shape:
        expected = shape if layout is None else file_shape(shape, layout)
        also = "" if layout is not None else f" or (B, {height}, {width}, {channels})"
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {', '.join(map(str, expected))}){also}")
    return x


def condition(
    label: Label, count: int, needed: Condition | None, facts: DataFacts, device: torch.device
) -> Tensor | None:
    """The condition of every image with shape `(B, F)`, int64; None for a model without one.

    Args:
        label: see `Label`.
        count: number of images.
        needed: the condition of the model.
        facts: facts about the data, with the names of its classes.
        device: the device of the result.

    Raises:
        ValueError: the label is missing, has another shape, or names no class.
    """
    if needed is None:
        return None
    columns = facts.factors[: len(needed.sizes)]
    if label is None:
        raise ValueError(f"this model is conditional; pass label=, one of {columns[0].size} classes for every image")
    given = np.asarray(label.numpy(force=True) if isinstance(label, Tensor) else label)
    if given.ndim == 0:
        given = np.full((count, 1), given)
    given = given[:, None] if given.ndim == 1 else given
    if given.shape[0] != count or given.shape[1] < len(columns):
        raise ValueError(f"label has shape {given.shape}, expected ({count}, {len(columns)})")
    if isinstance(label, Tensor | np.ndarray) and given.dtype.kind in "iu":
        columns = tuple(factor._replace(values=None) for factor in columns)
    numbers = [class_numbers(given[:, i].tolist(), factor) for i, factor in enumerate(columns)]
    return torch.tensor(numbers, dtype=torch.int64, device=device).view(len(columns), count).T


def given_latents(z: Any, model: LatentVariableModel) -> list[Tensor]:
    """The latents of every layer as float32 tensors `(N, *shape)`, the topmost first.

    Args:
        z: see `TrainedModel.decode`.
        model: the model.

    Raises:
        ValueError: the latents have another shape, or are of another number of layers.
    """
    shapes, given = model.latent_shapes, z
    if isinstance(model, SingleLatent):
        z, book = torch.as_tensor(z, device=model.device), model.codebook
        given = [z if book is None or z.is_floating_point() else book.embed(_checked_codes(z, book))]
    if isinstance(given, Tensor | np.ndarray) or len(given) != len(shapes):
        raise ValueError(f"z has to be a list of {len(shapes)} tensors, one per layer of latents, the topmost first")
    layers = [torch.as_tensor(layer, dtype=torch.float32, device=model.device) for layer in given]
    for number, (layer, shape) in enumerate(zip(layers, shapes, strict=True), 1):
        name = "z" if len(layers) == 1 else f"layer {number} of z"
        if layer.shape[1:] != shape or len(layer) != len(layers[0]):
            count = "N" if number == 1 else str(len(layers[0]))
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"{name} has shape {tuple(layer.shape)}, expected ({count}, {wanted})")
    return layers


def _checked_codes(codes: Tensor, book: Codebook) -> Tensor:
    """Indices as int64; they must have the right shape, and be inside the codebook."""
    if codes.shape[1:] != tuple(book.code_shape):
        raise ValueError(f"codes have shape {tuple(codes.shape)}, expected (N, {', '.join(map(str, book.code_shape))})")
    if codes.numel() and not (codes.min() >= 0 and codes.max() < book.num_codes):
        raise ValueError(f"codes must be from 0 to {book.num_codes - 1}")
    return codes.long()


def _range(units: Units | None) -> str:
    """The range of values that the model accepts, for a message."""
    if units is None:
        return "pixels are numbers in [0, 1], or uint8"
    ranges = dict.fromkeys(f"{low:g} to {high:g}" for low, high in zip(units.low, units.high, strict=True))
    return f"values are {', '.join(ranges)}" + (", per column" if len(ranges) > 1 else "")
