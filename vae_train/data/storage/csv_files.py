"""Reads tables of numbers from .csv and .tsv files."""

import csv
import logging
from pathlib import Path

import numpy as np

from vae_train.util.errors import UsageError

MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")
"""Representations of a missing number, in lower case."""

log = logging.getLogger("vae_train")


def read_table(file: Path) -> np.ndarray:
    """Reads the numeric columns of a table as float64 `(N, D)`; missing numbers are NaN.

    A first row without numbers is a header. Text columns are left out, with a warning.

    Raises:
        UsageError: the file has no numbers, or rows of different lengths.
    """
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    try:
        dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:10_000], delimiters=",;\t ")
    except csv.Error:
        dialect = csv.excel
    rows = [row for row in csv.reader(text.splitlines(), dialect) if any(cell.strip() for cell in row)]
    if not rows:
        raise UsageError("is empty")
    has_header = all(_number(cell) is None for cell in rows[0])
    names = [cell.strip() for cell in rows[0]] if has_header else [f"column {i}" for i in range(len(rows[0]))]
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise UsageError(f"has {len(row)} cells in row {number:,}, but {len(names)} in the first")
    columns = list(zip(*rows[has_header:], strict=True))
    numbers = [[_number(cell) for cell in column] for column in columns]
    numeric = [values for values in numbers if None not in values]
    if not numeric:
        raise UsageError("has no numeric column")
    if len(numeric) < len(names):
        left_out = [name for name, values in zip(names, numbers, strict=True) if None in values]
        log.warning("%s: left out the text columns %s", file, ", ".join(left_out))
    if has_header and np.isnan(np.array(numeric, dtype=np.float64)).any():
        kept = [name for name, values in zip(names, numbers, strict=True) if None not in values]
        log.warning("%s: columns %s", file, ", ".join(f"{column} ({name})" for column, name in enumerate(kept)))
    return np.array(numeric, dtype=np.float64).T.copy()


def _number(cell: str) -> float | None:
    """The number in a cell, NaN if it is missing; None if it is text."""
    try:
        return float("nan") if cell.strip().lower() in MISSING else float(cell)
    except ValueError:
        return None
