"""Checks missing values of arrays: NaN, which a mask leaves out of the likelihood."""

import logging
from collections.abc import Callable

import numpy as np

from vae_train.data.storage.value_checks import chunks
from vae_train.util.errors import UsageError

MAX_LISTED = 8
"""Number of columns that a message lists."""

log = logging.getLogger("vae_train")


def check_missing(arrays: list[np.ndarray], masked: bool, max_scanned_bytes: int) -> None:
    """Rejects infinite numbers, and NaN unless they are masked; logs the number of masked ones.

    Args:
        arrays: the images of every split.
        masked: whether numbers may be missing.
        max_scanned_bytes: size above which only evenly spaced images are checked.

    Raises:
        UsageError: reports the number of infinite or missing values, for vectors per column.
    """
    whole = sum(array.nbytes for array in arrays) <= max_scanned_bytes
    some_missing, all_missing, infinite = False, True, False
    for chunk in chunks(arrays, whole):
        is_missing = np.isnan(chunk)
        some_missing, all_missing = some_missing or is_missing.any(), all_missing and is_missing.all()
        infinite = infinite or np.isinf(chunk).any()
    if infinite:
        raise UsageError(f"has infinite numbers: {_counts(arrays, np.isinf)}; leave out these rows or replace them")
    if some_missing and not masked:
        advice = "data.missing=mask trains without them, or leave out these rows"
        raise UsageError(f"has missing numbers (NaN): {_counts(arrays, np.isnan)}; {advice}")
    if all_missing:
        raise UsageError("contains only NaN")
    if masked and whole:
        counts = _counts(arrays, np.isnan) if some_missing else "none, so data.missing=mask has no effect"
        log.info("missing numbers (NaN): %s", counts)


def _counts(arrays: list[np.ndarray], test: Callable[[np.ndarray], np.ndarray]) -> str:
    """The number of values that pass a test, for vectors per column."""
    counts = sum(test(chunk).sum(0) for chunk in chunks(arrays, whole=True))
    if arrays[0].ndim != 2:
        return f"{np.sum(counts):,} of {sum(array.size for array in arrays):,}"
    listed = [f"{count:,} in column {column}" for column, count in enumerate(counts) if count]
    return ", ".join([*listed[:MAX_LISTED], *(["…"] if len(listed) > MAX_LISTED else [])])
