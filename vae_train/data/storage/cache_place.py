"""The folder for caches of data."""

import os
import shutil
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


@contextmanager
def new_cache(place: Path) -> Iterator[Path]:
    """Yields a new folder that becomes `place` if the block succeeds, so that an incomplete cache is never used."""
    temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    _remove_abandoned(place)
    temporary.mkdir()
    try:
        yield temporary
        aside = place.with_name(f"{temporary.name}-old")
        if place.exists():  # another process has written it, or it is damaged
            place.rename(aside)
        temporary.rename(place)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(place: Path) -> None:
    """Removes incomplete caches of processes that have ended."""
    for left in place.parent.glob(f"{place.name}.*.tmp*"):
        process = left.name.removeprefix(f"{place.name}.").partition(".")[0]
        if not (process.isdigit() and _is_running(int(process))):
            shutil.rmtree(left, ignore_errors=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # on Windows, os.kill would end the process
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return process != os.getpid()
