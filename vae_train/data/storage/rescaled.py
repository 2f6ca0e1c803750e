"""Images of any array as the levels that a model was trained on."""

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Layout
from vae_train.data.storage.layouts import image_shape, to_images
from vae_train.data.storage.stored import Location, Store

MAX_BYTE_LEVELS = 256


class RescaledStore(Store):
    """Pixels of an array, scaled, clipped and rounded to levels.

    Args:
        array: `(N, …)`, in any layout.
        rows: indices of the images within `array`.
        layout: the order of an image's dimensions in `array`.
        low: the value that becomes the first level.
        high: the value that becomes the last level.
        levels: number of levels.
    """

    device = torch.device("cpu")
    immediate = False

    def __init__(
        self, array: np.ndarray, rows: np.ndarray, layout: Layout, low: float, high: float, levels: int
    ) -> None:
        self.array, self.rows, self.layout, self.low, self.high, self.levels = array, rows, layout, low, high, levels
        self.shape = image_shape(array.shape, layout)
        self.location: Location = "file" if isinstance(array, np.memmap) else "memory"
        self.itemsize = 1 if levels <= MAX_BYTE_LEVELS else 4

    @override
    def __len__(self) -> int:
        return len(self.rows)

    @override
    def take(self, index: Tensor) -> Tensor:
        values = np.ascontiguousarray(to_images(self.array[self.rows[index.cpu().numpy()]], self.layout))
        if values.dtype == np.uint8 and (self.low, self.high) == (0, self.levels - 1):
            return torch.from_numpy(values)
        units = (values.astype(np.float32) - self.low) / (self.high - self.low)
        numbers = np.rint(units.clip(0, 1) * (self.levels - 1))
        return torch.from_numpy(numbers.astype(np.uint8 if self.itemsize == 1 else np.float32))
