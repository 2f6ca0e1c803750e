"""The orders of dimensions in array files, and conversions between them and images (C, H, W)."""

import numpy as np

from vae_train.batch import Layout, Shape

LAYOUTS: dict[Layout, tuple[int | None, int | None, int | None]] = {
    "NCHW": (1, 2, 3),
    "NHWC": (3, 1, 2),
    "NHW": (None, 1, 2),
    "NCT": (1, None, 2),  # signals: C channels of T samples
    "NTC": (2, None, 1),
    "ND": (None, None, 1),  # vectors
}
"""Layout -> the axes of C, H and W in an array; None for a dimension of size 1 that the array lacks."""


def image_shape(stored: Shape, layout: Layout) -> Shape:
    """(C, H, W) of the images of an array with the shape `stored`."""
    return tuple(1 if axis is None else stored[axis] for axis in LAYOUTS[layout])


def file_shape(shape: Shape, layout: Layout) -> Shape:
    """The shape of one image (C, H, W) in an array; the inverse of `image_shape` without the number of images."""
    sizes = {axis: size for axis, size in zip(LAYOUTS[layout], shape, strict=True) if axis is not None}
    return tuple(sizes[axis] for axis in sorted(sizes))


def to_images(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Converts an array `(N, …)` to images `(N, C, H, W)`."""
    axes = [axis for axis in LAYOUTS[layout] if axis is not None]
    return array.transpose(0, *axes).reshape(len(array), *image_shape(array.shape, layout))


def from_images(images: np.ndarray, layout: Layout) -> np.ndarray:
    """Converts images `(N, C, H, W)` to an array `(N, …)`; the inverse of `to_images`."""
    sizes = {axis: size for axis, size in zip(LAYOUTS[layout], images.shape[1:], strict=True) if axis is not None}
    return images.reshape(-1, *sizes.values()).transpose(0, *(1 + np.argsort(list(sizes))))
