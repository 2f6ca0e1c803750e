"""Binary pixels: grey values cut at one half, or as the probabilities of bits."""

from __future__ import annotations

from typing import Literal

import numpy as np

Binarize = Literal["none", "dynamic", "threshold"]
"""Keep grey levels; draw bits with the grey values as probabilities, anew for every training batch and once for
validation and test; or cut at one half."""


def binarized_levels(levels: int, binarize: Binarize) -> int:
    """Number of values of a pixel that a model sees."""
    return levels if binarize == "none" else 2


def random_bits(pixels: np.ndarray, levels: int, rng: np.random.RandomState) -> np.ndarray:
    """`rng.binomial(1, p)` as uint8 for p = k / (levels - 1) in float32, bit for bit, in a fraction of the time.

    NumPy's legacy generator returns 1 if a uniform number exceeds 1 - p for p <= 1/2, and otherwise 0 if it exceeds p.
    """
    probability = (np.arange(levels, dtype=np.float32) / np.float32(levels - 1)).astype(np.float64)
    threshold = np.exp(np.log(np.maximum(probability, 1 - probability)))
    exceeds = rng.random_sample(pixels.shape) > threshold[pixels]
    return (exceeds == (probability <= 0.5)[pixels]).astype(np.uint8)
