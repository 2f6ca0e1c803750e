"""Images with hidden values that a caller gives, and their completions in the same units."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import DataFacts
from vae_train.data.dataset import Transforms
from vae_train.data.storage.layouts import LAYOUTS, file_shape, from_images, to_images
from vae_train.evaluation.inpainting import MaskedImages
from vae_train.model.base import LatentVariableModel
from vae_train.runs.given import GivenImages, Label, as_images


class IncompleteImages(MaskedImages):
    """Images in the units of the data of which a part is hidden; what they have there does not matter.

    Args:
        x: the images, see `as_images`. NaN is hidden as well.
        mask: True for seen values, see `as_mask`; None if only NaN is hidden.
        label: the condition of a conditional model.
        model: the model.
        facts: facts about the data that the model was trained on.
        transforms: transforms between stored images and the model.

    Raises:
        ValueError: shape, type, range, mask or condition do not fit the model.
    """

    def __init__(
        self, x: Any, mask: Any, label: Label, model: LatentVariableModel, facts: DataFacts, transforms: Transforms
    ) -> None:
        self.x, self.facts, units = as_images(x, facts).cpu(), facts, facts.units
        self.observed = ~self.x.isnan() & (torch.tensor(True) if mask is None else as_mask(mask, self.x, facts))
        valid = np.zeros(()) if units is None else (units.array("low") + units.array("high")) / 2
        x = torch.where(self.observed, self.x, torch.as_tensor(valid).to(self.x.dtype))
        super().__init__(GivenImages(x, label, model, facts, transforms), lambda index, _: self.observed[index.cpu()])

    def restore(self, completed: Tensor) -> Tensor:
        """Puts the seen values, exactly as they were given, into completed images.

        Args:
            completed: `(completions · B, …)` in the units and the layout of the data.

        Returns:
            `(completions, B, …)` on the CPU. Pixels that were given as uint8 are divided by 255.
        """
        x = self.x / 255 if self.x.dtype == torch.uint8 and self.facts.units is None else self.x
        given, observed = (self._in_layout(images) for images in (x, self.observed))
        return torch.where(observed, given, completed.cpu().unflatten(0, (-1, len(given))))

    def _in_layout(self, images: Tensor) -> Tensor:
        layout = self.facts.layout
        return images if layout is None else torch.from_numpy(from_images(images.numpy(), layout))


def as_mask(mask: Any, x: Tensor, facts: DataFacts) -> Tensor:
    """A mask with the shape of `x`.

    Args:
        mask: a bool tensor or array that is True for seen values, with shape `(B or 1, C or 1, H, W)` or `(H, W)`. For
            images of an array file it may have their layout, for instance `(B or 1, D)` for vectors.
        x: the images `(B, C, H, W)`.
        facts: facts about the data.

    Raises:
        ValueError: it has another shape or type.
    """
    seen, layout = torch.as_tensor(mask if isinstance(mask, Tensor) else np.array(mask)).cpu(), facts.layout
    if seen.dtype != torch.bool:
        raise ValueError(f"mask has the type {seen.dtype}, expected bool, True for seen values")
    if layout is not None and seen.dim() == sum(axis is not None for axis in LAYOUTS[layout]) + 1:
        images = torch.from_numpy(np.ascontiguousarray(to_images(seen.numpy(), layout)))
        seen = images if _broadcasts(images, x) else seen
    if not _broadcasts(seen, x):
        batch, channels, height, width = x.shape
        sizes = [f"{channels} or 1", height, width] if layout is None else file_shape(x.shape[1:], layout)
        expected = f"({batch} or 1, {', '.join(map(str, sizes))})"
        raise ValueError(f"mask has shape {tuple(seen.shape)}, expected {expected}")
    return seen.expand(x.shape)


def _broadcasts(mask: Tensor, x: Tensor) -> bool:
    """Whether a mask of whole images broadcasts to `x`."""
    shape = (1, 1, *mask.shape) if mask.dim() == 2 else mask.shape
    sizes = zip(shape, x.shape, (True, True, False, False), strict=False)
    return len(shape) == 4 and all(size == full or (size == 1 and free) for size, full, free in sizes)
