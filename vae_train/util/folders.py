"""New folders of results, which are complete or do not exist."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vae_train.util.errors import ErrorDetail, RunError


def out_errors(out: str | None, overwrite: bool, marker: str) -> list[ErrorDetail]:
    """Reports a folder for results that may not be written.

    Args:
        out: the folder as typed; None for a new one, see `results_folder`.
        overwrite: whether an existing folder may be replaced.
        marker: name of a file that every such folder has, without which nothing is replaced.
    """
    if out is None:
        return []
    folder = Path(out)
    if folder.is_symlink():
        return [ErrorDetail(f"out={out}", "is a symbolic link, and vae does not write through links; remove it")]
    if folder.exists() and not folder.is_dir():
        return [ErrorDetail(f"out={out}", "is a file; choose a folder")]
    if folder.exists() and any(folder.iterdir()):
        if not (folder / marker).is_file():
            return [ErrorDetail(f"out={out}", "exists and has files other than such results; choose another folder")]
        if not overwrite:
            return [ErrorDetail(f"out={out}", "exists and is not empty; choose another folder, or add overwrite=true")]
    return folder_errors(out, f"out={out}")


def folder_errors(folder: str, where: str) -> list[ErrorDetail]:
    """Reports a folder in which no files can be written; it need not exist.

    Args:
        folder: the folder.
        where: the setting as typed, for the message.
    """
    path = Path(folder).absolute()
    parent = next(path for path in (path, *path.parents) if path.exists())
    if not parent.is_dir():
        return [ErrorDetail(where, f"{parent} is a file; choose a folder")]
    if not os.access(parent, os.W_OK | os.X_OK):
        return [ErrorDetail(where, f"{parent} is not writable; choose another folder")]
    return []


@dataclass
class Results:
    """A folder of results that is being written."""

    temporary: Path
    """Where the files are written."""
    folder: Path
    """Its final name, which is settled when it is complete."""


@contextmanager
def results_folder(folder: Path, *, overwrite: bool, numbered: bool) -> Iterator[Results]:
    """Yields a temporary folder, which takes its final name when the block ends, and is removed if it fails.

    Args:
        folder: the final name.
        overwrite: replace an existing folder.
        numbered: append a number to the name instead, if such a folder exists.

    Raises:
        RunError: the folder cannot be written, or exists.
    """
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    results = Results(temporary, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield results
        results.folder = free_name(folder) if numbered and not overwrite else folder
        _rename(temporary, results.folder, overwrite)
    except OSError as error:
        raise RunError(f"could not write {error.filename or folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def free_name(path: Path, suffix: str = "") -> Path:
    """The path, or with a number appended to its name the first one that does not exist.

    Args:
        path: the path.
        suffix: that of a file, before which the number is placed.
    """
    stem, free, number = path.name.removesuffix(suffix), path, 1
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{stem}-{number}{suffix}")
    return free


def _rename(temporary: Path, folder: Path, overwrite: bool) -> None:
    if not overwrite:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # an empty folder may be replaced, which Windows does not do by renaming
        temporary.rename(folder)
        return
    aside = temporary.with_name(f"{temporary.name}-old")
    if folder.exists():
        folder.rename(aside)
    temporary.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)
