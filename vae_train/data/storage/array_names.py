"""Which arrays of a file hold images and labels, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from vae_train.batch import Split
from vae_train.data.storage.listing import SPLIT_NAMES
from vae_train.util.errors import ErrorDetail, UsageError

LABEL_NAMES = ("labels", "label", "y", "targets", "target", "factors", "latents_classes", "classes")
"""Names of arrays with labels, in the order of preference."""

MAX_LISTED = 12
"""Arrays that a message names."""


def image_names(arrays: Mapping[str, np.ndarray], key: str | None, labels: str | None = None) -> dict[Split, str]:
    """For every split the name of the array with its images.

    Names such as x_train, test_images or val contain the split. If none does, all images are in one array, which is
    called "train" here.

    Args:
        arrays: the arrays of a file.
        key: the array's name, or what the names of the splits have in common; None to guess it.
        labels: likewise for the labels, which are not images.

    Raises:
        UsageError: no array matches, or several do.
    """
    if key is not None and key in arrays:
        return {"train": key}
    if key is None and len(arrays) == 1:
        return {"train": next(iter(arrays))}
    candidates = [name for name in arrays if (_may_be_images(name, labels) if key is None else _matches(key, name))]
    by_split: dict[Split | None, list[str]] = {}
    for name in candidates:
        by_split.setdefault(_split(name), []).append(name)
    named = {split: names for split, names in by_split.items() if split is not None}
    chosen: dict[Split, list[str]] = named if "train" in named else {"train": candidates}
    if any(len(names) != 1 for names in chosen.values()):
        where, why = ("", "says which are the images") if key is None or candidates else (key, "there is no such array")
        raise UsageError([ErrorDetail(f"data.key={where}", f"{why}: the file has {_listed(arrays)}")])
    return {split: names[0] for split, names in chosen.items()}


def label_name(arrays: Mapping[str, np.ndarray], images: str, key: str | None) -> str | None:
    """The array with the labels of the images called `images`; None if there is none.

    Args:
        arrays: the arrays of a file.
        images: the array with the images.
        key: the labels' name, or what the names of the splits have in common; None to guess it.

    Raises:
        UsageError: there is no array called `key`.
    """
    split = _split(images)
    candidates = [name for name in arrays if name != images and split in (None, _split(name))]
    if key is None:
        guessed = [name for name in candidates if _base_name(name) in LABEL_NAMES and _split(name) == split]
        return min(guessed, key=lambda name: LABEL_NAMES.index(_base_name(name)), default=None)
    matching = [name for name in candidates if name == key or (_split(name) == split and _matches(key, name))]
    if not matching:
        what = f"there is no such array for {images}" if images else "there is no such array"
        raise UsageError([ErrorDetail(f"data.labels={key}", f"{what}: the file has {_listed(arrays)}")])
    return key if key in matching else matching[0]


def _may_be_images(name: str, labels: str | None) -> bool:
    return _base_name(name) not in LABEL_NAMES and not (labels is not None and _matches(labels, name))


def _matches(key: str, name: str) -> bool:
    """Whether `key` is `name`, or the same name with another split or none."""
    return key == name or _base_name(key) == _base_name(name)


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    names = [name or "one array without a name" for name in arrays]
    return ", ".join([*names[:MAX_LISTED], *(["…"] if len(names) > MAX_LISTED else [])]) or "no arrays"


def _split(name: str) -> Split | None:
    """The split that `name` contains."""
    return next((SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES), None)


def _base_name(name: str) -> str:
    """`name` without its split, in lower case."""
    if _split(name) is None:
        return name.lower()
    return "_".join(word for word in _words(name) if word not in SPLIT_NAMES)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
