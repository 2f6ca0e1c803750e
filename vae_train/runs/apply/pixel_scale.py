"""The scale of given pixels: which values become the first and the last level of a trained model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vae_train.batch import DataFacts
from vae_train.data.storage.levels import depth
from vae_train.runs.config import Config

BYTE = 255
GREY_LEVELS = 256
"""Levels of the grey values from which bits are sampled."""


class PixelScale(NamedTuple):
    """How pixels become the values of a model, and how these become levels."""

    low: float
    """The pixel value that becomes 0."""
    high: float
    """The pixel value that becomes 1."""
    levels: int
    """Number of levels to which values are rounded."""
    stochastic: bool = False
    """Whether values are probabilities of bits."""

    @classmethod
    def of(cls, facts: DataFacts, config: Config) -> PixelScale:
        """The scale of the pixels that a run was trained on."""
        assert facts.levels is not None
        found, stochastic = config.at("data.range"), facts.levels == 2 and config.at("data.binarize") == "dynamic"
        levels = GREY_LEVELS if stochastic else facts.levels
        if found is not None:
            return cls(float(found[0]), float(found[1]), levels, stochastic)
        return cls(0.0, float(levels - 1 if levels > GREY_LEVELS else BYTE), levels, stochastic)

    def of_files(self, bits: int) -> PixelScale:
        """The scale of image files with pixels of 8 or more bits, see `Depths.bits`."""
        own = depth(int(self.high)) or 16
        few = bits <= 8
        factor = BYTE / (2**own - 1) if few and own > 8 else (2**bits - 1) / BYTE if not few and own == 8 else 1.0
        return self._replace(low=self.low * factor, high=self.high * factor)

    def of_array(self, array: np.ndarray, is_from_array: bool) -> PixelScale:
        """The scale of an array's values.

        Args:
            array: the array.
            is_from_array: whether the run was trained on an array file, whose units are those of this array.
        """
        if is_from_array:
            return self
        if array.dtype == np.bool_:
            return self._replace(low=0.0, high=1.0)
        if array.dtype.kind == "f":
            return self._replace(low=0.0, high=1.0)
        return self.of_files(8 if array.dtype.itemsize == 1 else 16)

    @property
    def note(self) -> str | None:
        """How pixels become bits; None for models of more levels."""
        if self.stochastic:
            return "pixels become bits at random, with grey values as probabilities; the same bits every time"
        return "pixels become bits, thresholded at half the brightness" if self.levels == 2 else None
