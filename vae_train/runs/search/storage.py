"""Where the study of a search is stored: a journal in the folder of its sweep, or a database."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.text import first_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

VARIABLE = "VAE_STORAGE"
"""The environment variable with the URL of a database, which may contain a password."""

JOURNAL_FILE = "study.journal"

GRACE_S = 5
"""Seconds after which the lock of the journal is taken from a process that was killed while it wrote."""

PASSWORD = re.compile(r"(?<=://)([^/@:]*):([^/@]*)@")
"""User and password in a URL."""


def without_password(url: str) -> str:
    """A URL as it may be stored and shown."""
    return PASSWORD.sub(r"\1@", url)


def chosen_url(typed: str | None) -> str | None:
    """The URL of a new search without its password: as typed, or that of the environment; None for a journal."""
    url = typed or os.environ.get(VARIABLE)
    return without_password(url) if url else None


def full_url(stored: str) -> str:
    """The URL to connect to: the stored one, with the password if the environment has it."""
    url = os.environ.get(VARIABLE, "")
    url = url if without_password(url) == stored else stored
    return re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)  # SQLAlchemy would look for psycopg2


def unconfirmed(stored: str, typed: str | None = None) -> str | None:
    """Why the database that a sweep names is not used: its folder may be a stranger's; None if the user names it, too.

    Args:
        stored: its URL without a password.
        typed: the URL as typed.
    """
    if stored in (typed, without_password(os.environ.get(VARIABLE, ""))):
        return None
    return f"is where this sweep has its study, and is not connected to unless {VARIABLE} is set to this URL, too"


def storage_errors(typed: str | None, stored: str | None = None) -> list[ErrorDetail]:
    """A URL with a password, and a database that cannot be reached.

    Args:
        typed: the URL as typed.
        stored: that of a search which goes on.
    """
    if typed and PASSWORD.search(typed):
        message = f"has a password, which vae does not store; set the environment variable {VARIABLE} to this URL"
        return [ErrorDetail(f"search.storage={without_password(typed)}", f"{message} and leave out search.storage")]
    url = stored or chosen_url(typed)
    if stored is not None and (reason := unconfirmed(stored, typed)):
        return [ErrorDetail(f"search.storage={stored}", reason)]
    if url is None or url.startswith("sqlite"):  # connecting would create the file
        return []
    where = VARIABLE if not typed and without_password(os.environ.get(VARIABLE, "")) == url else f"search.storage={url}"
    try:
        from sqlalchemy import create_engine

        engine = create_engine(full_url(url))
        engine.connect().close()
        engine.dispose()
    except Exception as error:  # every driver has its own errors
        return [ErrorDetail(where, unreachable(url, error))]
    return []


def unreachable(url: str, error: Exception) -> str:
    """Why a database cannot be used, in a line."""
    if isinstance(error, ImportError):
        hint = "; pip install 'vae_train[postgresql]'" if url.startswith("postgres") else ""
        return f"its driver is not installed ({first_line(error)}){hint}"
    return f"cannot be reached: {first_line(error)}"


def open_storage(folder: Path, stored: str | None) -> BaseStorage:
    """Opens the storage of a study.

    Args:
        folder: the folder of the sweep.
        stored: URL of a database without a password; None for the journal in `folder`.

    Raises:
        UsageError: the database cannot be reached, or only the sweep names it.
    """
    import optuna

    if stored is not None and (reason := unconfirmed(stored)):
        raise UsageError(f"{stored} {reason}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if stored is None:
        return _open_journal(folder.resolve() / JOURNAL_FILE)
    try:
        from sqlalchemy.pool import NullPool

        # Each operation connects anew, so that a restart of the database does not matter.
        return optuna.storages.RDBStorage(full_url(stored), engine_kwargs={"poolclass": NullPool})
    except Exception as error:
        raise UsageError(f"{stored} {unreachable(stored, error)}") from error


def _open_journal(path: Path) -> BaseStorage:
    """Opens a journal by its absolute path.

    Optuna's default lock, a symbolic link, hangs for ever if its path is relative and its holder was killed.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    logging.getLogger("optuna.storages.journal").setLevel(logging.ERROR)
    lock: Any = JournalFileOpenLock(str(path), grace_period=GRACE_S)
    if path.exists() and not _ends_with_line(path):
        lock.acquire()
        try:
            _remove_torn_line(path)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _ends_with_line(path: Path) -> bool:
    return path.read_bytes()[-1:] in (b"", b"\n")


def _remove_torn_line(path: Path) -> None:
    """Removes what a process wrote of a line when the power failed or the disk was full: no journal could be read."""
    content = path.read_bytes()
    os.truncate(path, content.rfind(b"\n") + 1)
