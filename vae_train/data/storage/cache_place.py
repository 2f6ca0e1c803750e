"""The folder for caches of data."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_train.util.errors import UsageError
from vae_train.util.files import SavedPath


def cache_folder(given: str | None) -> Path:
    """The folder for caches: `given`, unless only a saved run names it, or else the user's cache folder."""
    if given and not isinstance(given, SavedPath):
        return Path(os.path.expanduser(given))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_train"


@contextmanager
def writing_cache(what: str, folder: Path) -> Iterator[None]:
    """Creates `folder`, and converts disk errors in the block to a message that `what` could not be written.

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
