"""The images of a run's data as arrays in the units that its trained model takes."""

from typing import NamedTuple

import numpy as np
import torch

from vae_train.batch import SPLITS
from vae_train.data.session import DataSession
from vae_train.data.storage.layouts import from_images
from vae_train.runs.build import Builder, load_data
from vae_train.runs.check import run_data_errors
from vae_train.runs.run import Run
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.text import did_you_mean


class LabeledArrays(NamedTuple):
    """Images and labels of one split."""

    images: np.ndarray
    """`(N, C, H, W)`: uint8 from 0 to 255 or float32 in [0, 1]; arrays of a file in its units and layout, float64."""
    labels: np.ndarray | None
    """Class numbers `(N,)`, or factors of variation `(N, F)`; None without labels."""


def read_split(run: Run, builder: Builder, split: str) -> LabeledArrays:
    """Reads the images and labels of a split.

    Args:
        run: the run.
        builder: locates classes.
        split: "train", "valid" or "test".

    Raises:
        UsageError: there is no such split, or the data cannot be read.
    """
    if split not in SPLITS:
        raise UsageError([ErrorDetail(f"split={split}", f"no such split{did_you_mean(split, SPLITS)}")])
    session = DataSession()
    if errors := run_data_errors(run, run.config, session, builder):
        raise UsageError(errors)
    data = load_data(run.config, session, torch.device("cpu"), builder)
    if split not in data.splits:
        raise UsageError([ErrorDetail(f"split={split}", "this run's data has no such split")])
    stored, facts = data.splits[split], data.stored_facts
    pixels = stored.pixels
    if facts.units is not None and stored.levels is None:
        images = facts.units.to_file(pixels).numpy()
    elif stored.levels == 256:
        images = pixels.numpy()
    else:
        images = stored.unit(pixels).float().numpy()
    labels = None if stored.labels is None else stored.labels.numpy()
    if labels is not None and labels.shape[1] == 1:
        labels = labels[:, 0]
    return LabeledArrays(images if facts.layout is None else from_images(images, facts.layout), labels)
