"""How pixels became what a likelihood scores: values of different protocols cannot be compared."""

from __future__ import annotations

from vae_train.data.dataset import Dataset


def protocol(data: Dataset) -> str:
    """Describes how pixels became what the likelihood scores.

    Args:
        data: the data set.
    """
    levels, preprocessing = data.stored_facts.levels, data.transforms.preprocessing
    if levels == 2:
        return {
            "dynamic": "binary pixels, drawn with the grey values as probabilities, the same bits at every evaluation",
            "threshold": "binary pixels, cut at half the brightness",
        }.get(data.binarization, "binary pixels")
    if levels is None:
        return "continuous values: a density of the numbers in the file"
    if preprocessing is not None and preprocessing.dequantize:
        return f"{levels} levels, one uniform dequantisation per image: bits/dim are an upper bound"
    return f"{levels} levels, dequantised in closed form: bits/dim are an upper bound"
