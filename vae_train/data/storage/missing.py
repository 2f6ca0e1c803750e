"""Missing values of arrays: numbers that are NaN, which a mask leaves out of the likelihood."""

import logging
from collections.abc import Callable

import numpy as np

from vae_train.data.storage.value_checks import chunks
from vae_train.util.errors import UsageError

MAX_LISTED = 8
"""Columns that a message names."""

log = logging.getLogger("vae_train")


def check_missing(arrays: list[np.ndarray], masked: bool, max_scanned_bytes: int) -> None:
    """Refuses infinite numbers, and NaN unless they are masked; their number is logged then.

    Args:
        arrays: the images of every split.
        masked: whether numbers may be missing.
        max_scanned_bytes: of larger arrays only evenly spaced images are checked.

    Raises:
        UsageError: says how many numbers are infinite or missing, for vectors by column.
    """
    whole = sum(array.nbytes for array in arrays) <= max_scanned_bytes
    some_missing, all_missing, infinite = False, True, False
    for chunk in chunks(arrays, whole):
        is_missing = np.isnan(chunk)
        some_missing, all_missing = some_missing or is_missing.any(), all_missing and is_missing.all()
        infinite = infinite or np.isinf(chunk).any()
    if infinite:
        raise UsageError(f"holds infinite numbers: {_counts(arrays, np.isinf)}; leave out these rows or replace them")
    if some_missing and not masked:
        advice = "data.missing=mask trains without them, or leave out these rows"
        raise UsageError(f"holds missing numbers (NaN): {_counts(arrays, np.isnan)}; {advice}")
    if all_missing:
        raise UsageError("holds nothing but NaN")
    if masked and whole:
        counts = _counts(arrays, np.isnan) if some_missing else "none, so that data.missing=mask has no effect"
        log.info("missing numbers (NaN): %s", counts)


def _counts(arrays: list[np.ndarray], test: Callable[[np.ndarray], np.ndarray]) -> str:
    """How many numbers pass a test, for vectors by column."""
    counts = sum(test(chunk).sum(0) for chunk in chunks(arrays, whole=True))
    if arrays[0].ndim != 2:
        return f"{np.sum(counts):,} of {sum(array.size for array in arrays):,}"
    listed = [f"{count:,} in column {column}" for column, count in enumerate(counts) if count]
    return ", ".join([*listed[:MAX_LISTED], *(["…"] if len(listed) > MAX_LISTED else [])])
