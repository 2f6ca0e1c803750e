"""The order of an image's dimensions in an array, by name: N numbers the images."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from vae_train.batch import Shape

LayoutName = Literal["NCHW", "NHWC", "NHW", "NCT", "ND"]


class Layout(NamedTuple):
    """For C, H and W the axis of a stored image; None for a dimension of size 1 that the array does not have."""

    channel: int | None
    height: int | None
    width: int | None

    def shape(self, stored: Shape) -> Shape:
        """(C, H, W) of an image that is stored with the shape `stored`."""
        return tuple(1 if axis is None else int(stored[axis]) for axis in self)

    def arrange(self, images: np.ndarray) -> np.ndarray:
        """Permutes `(B, *stored)` to `(B, C, H, W)`."""
        axes = [axis + 1 for axis in self if axis is not None]
        return images.transpose(0, *axes).reshape(len(images), *self.shape(images.shape[1:]))


LAYOUTS: dict[LayoutName, Layout] = {
    "NCHW": Layout(0, 1, 2),
    "NHWC": Layout(2, 0, 1),
    "NHW": Layout(None, 0, 1),
    "NCT": Layout(0, None, 1),  # signals: C channels of T samples
    "ND": Layout(None, None, 0),  # vectors
}
