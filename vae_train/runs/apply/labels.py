"""The classes of the images that a trained model is applied to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_train.runs.given import Label, condition
from vae_train.runs.labels import known_classes
from vae_train.runs.schema import yaml_text
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError


def given_labels(
    label: Label, found: Sequence[Any] | np.ndarray | None, count: int, model: TrainedModel
) -> tuple[Tensor | None, Sequence[str] | None]:
    """The condition of every image, and the names of the classes.

    Args:
        label: the class of all images, which precedes those that were found; None for none.
        found: the class of every image, by sub-folder or as stored in the file, or the condition `(count, F)` as an
            array; None without.
        count: number of images.
        model: the model.

    Returns:
        The condition, int64 `(count, F)`, or None for a model without one; and the classes for the results.

    Raises:
        UsageError: a conditional model has no label for the images, or does not know one of them.
    """
    names = None if found is None or isinstance(found, np.ndarray) else [str(name) for name in found]
    if model.model.condition is None:
        return None, names
    if label is None and found is None:
        classes = known_classes(model.facts.factors[0])
        what = f"is needed: this model is conditional, and the input has no labels; use one of {classes}"
        raise UsageError([ErrorDetail("label=", what)])
    chosen = np.asarray([label] * count) if label is not None and np.ndim(label) == 1 else label  # type: ignore[arg-type]
    try:
        y = condition(
            found if label is None else chosen, count, model.model.condition, model.facts, torch.device("cpu")
        )
    except ValueError as error:
        raise UsageError([ErrorDetail(_typed(label), str(error))]) from error
    return y, names if label is None else [str(label)] * count


def _typed(label: Label) -> str:
    """The setting that gave a label, or factors."""
    if label is None:
        return "label="
    return f"factors={yaml_text(list(label))}" if isinstance(label, list | tuple) else f"label={label}"
