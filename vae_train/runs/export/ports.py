"""The inputs and outputs of exported graphs, and the units of the data as tensor operations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import DataFacts, Layout, Shape, Units
from vae_train.data.storage.layouts import LAYOUTS, file_shape
from vae_train.model.condition import Condition

MAX_FLOAT32_RATIO = 100
"""Largest value of an array file, in multiples of its column's scale, that graphs take and return as float32. The
rounding of larger ones would be visible in the latents, so they are float64."""

LINES: tuple[Layout, ...] = ("ND", "NCT", "NTC")
"""Layouts of vectors and signals, which are no images."""

MAX_BYTE_LEVELS = 256
"""Pixels with more levels are not uint8."""


class Port(NamedTuple):
    """An input or an output of a graph."""

    name: str
    dtype: torch.dtype
    shape: Shape
    """Without the batch."""
    about: str

    def zeros(self) -> Tensor:
        """A batch of one."""
        return torch.zeros((1, *self.shape), dtype=self.dtype)


def image_port(facts: DataFacts) -> Port:
    """The images, signals or vectors that an encoder takes, in units and layout of the data."""
    (shape, _), units, levels = _layout(facts), facts.units, facts.levels
    name = "x" if facts.layout in LINES else "image"
    if units is None and levels is not None and levels <= MAX_BYTE_LEVELS:
        rounded = "" if levels == MAX_BYTE_LEVELS else f", rounded to the {levels} levels of the data"
        return Port(name, torch.uint8, shape, f"pixels from 0 to 255{rounded}")
    if units is None:
        return Port(name, torch.float32, shape, "pixels in [0, 1]")
    largest = np.maximum(abs(units.array("low")), abs(units.array("high"))) / units.array("scale")
    dtype = torch.float32 if largest.max() <= MAX_FLOAT32_RATIO else torch.float64
    return Port(name, dtype, shape, "values in the units of the data" + (", NaN if missing" * facts.missing))


def mean_port(facts: DataFacts) -> Port:
    """The images that a decoder returns."""
    port = image_port(facts)
    if facts.units is not None:
        return port._replace(about="mean of p(x | z) in the units of the data")
    return port._replace(dtype=torch.float32, about="mean of p(x | z), pixels in [0, 1]")


def condition_ports(condition: Condition | None) -> tuple[Port, ...]:
    """The label or the factors of a conditional model; empty for others."""
    if condition is None:
        return ()
    if len(condition.sizes) == 1:
        return (Port("label", torch.int64, (), f"number of the class, 0 to {condition.sizes[0] - 1}"),)
    sizes = ", ".join(map(str, condition.sizes))
    return (Port("factors", torch.int64, (len(condition.sizes),), f"factors of variation, which have {sizes} values"),)


def to_model(x: Tensor, facts: DataFacts) -> Tensor:
    """Maps images in units and layout of the data to `(B, C, H, W)`, pixels in [0, 1] or scaled values."""
    shape, axes = _layout(facts)
    x = x.permute(0, *axes).reshape(-1, *facts.data_shape) if shape != facts.data_shape else x
    if facts.units is not None:
        return ((x - _constant(facts.units, "shift", x.dtype)) / _constant(facts.units, "scale", x.dtype)).float()
    return x.float() / 255 if x.dtype == torch.uint8 else x


def to_data(x: Tensor, facts: DataFacts, dtype: torch.dtype) -> Tensor:
    """Maps images of the model, without its preprocessing, to units and layout of the data; the inverse of `to_model`.

    Args:
        x: images with shape `(B, C, H, W)`.
        facts: facts about the stored images.
        dtype: type of the result.
    """
    x = x.to(dtype)
    if facts.units is not None:
        x = x * _constant(facts.units, "scale", dtype) + _constant(facts.units, "shift", dtype)
    shape, axes = _layout(facts)
    if shape == facts.data_shape:
        return x
    order = np.argsort(axes)
    return x.reshape(-1, *(shape[axis - 1] for axis in axes)).permute(0, *(1 + order).tolist())


def _layout(facts: DataFacts) -> tuple[Shape, tuple[int, ...]]:
    """The shape of an image in the layout of the data, and the dimensions of its array that are C, H and W, if any."""
    axes = (1, 2, 3) if facts.layout is None else LAYOUTS[facts.layout]
    shape = facts.data_shape if facts.layout is None else file_shape(facts.data_shape, facts.layout)
    return shape, tuple(axis for axis in axes if axis is not None)


def _constant(units: Units, name: str, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(units.array(name)).to(dtype)
