"""Where caches of data are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_train.util.errors import UsageError
from vae_train.util.files import SavedPath


def cache_folder(given: str | None) -> Path:
    """The folder that caches are written to: `given`, or the user's own, also if only a saved run names another."""
    if given and not isinstance(given, SavedPath):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_train"


@contextmanager
def writing_cache(what: str, folder: Path) -> Iterator[None]:
    """Makes `folder`, and turns an error of the disk into one that says that `what` could not be written to it.

    Raises:
        UsageError: the disk failed or is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"{what} could not be written to {folder} ({reason}); set data.cache= to another folder"
        ) from error
