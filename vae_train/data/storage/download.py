"""Files that are downloaded or unpacked once, complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file for writing, which becomes `path` when it is complete and is removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def mapped(path: Path) -> np.ndarray | None:
    """Maps the array of an .npy file into memory; None if it is missing or truncated."""
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None


def unavailable(name: str, place: Path, folder: str, error: Exception, files: str) -> str:
    """The message for a data set that is missing and cannot be downloaded.

    Args:
        name: name of the data set.
        place: where it should be.
        folder: the same, relative to `data.root`.
        error: why the download failed.
        files: what belongs there.
    """
    lines = str(error).strip().splitlines()
    reason = lines[-1] if lines else type(error).__name__
    return (
        f"{name} is not in {place} (or is damaged there) and could not be downloaded ({reason}). Either put {files} "
        f"there, or set data.root= to a folder that contains {folder}, or use data=digits"
    )
