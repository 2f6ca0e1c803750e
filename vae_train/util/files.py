"""Files that are written whole or not at all, never through a link, and locks that end with their process."""

import errno
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TextIO

from vae_train.util.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has no flock, and no run is locked there
    fcntl = None  # type: ignore[assignment]

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)

_held: set[int] = set()
"""Descriptors of the locks of this process."""


class SavedPath(str):
    """A path that a saved run names, which somebody else may have written: it is read, and nothing is written to it."""


@contextmanager
def temporary_name(path: Path) -> Iterator[Path]:
    """A fresh name beside `path`, whose file is removed when the block ends."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def unreadable(path: Path) -> str:
    """Says why a file was of no use: it does not exist, cannot be opened, or is damaged."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return f"{path} does not exist"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return f"{path} is damaged"


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """Opens a new file for writing, which takes the place of `path`, a link included, when the block ends well.

    Args:
        path: the file to replace.
        sync: wait until the content is on the disk, so that it survives a loss of power.
    """
    with temporary_name(path) as temporary:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)


def appending(path: Path) -> TextIO:
    """Opens a text file, which is no link, for writing at its end, line by line."""
    return open(path, "a", 1, encoding="utf-8", opener=lambda name, flags: os.open(name, flags | NO_FOLLOW, 0o666))


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Holds a lock within the block. The system releases it when the process dies; forked children do not hold it.

    Args:
        path: the lock's file, which says who holds it. Where the file system has no locks, nothing is locked.
        wait: wait until another process releases the lock.

    Raises:
        UsageError: another process holds the lock; names it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o666)
    _held.add(descriptor)
    try:
        _lock(descriptor, path, wait)
        os.ftruncate(descriptor, 0)
        holder = f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}"
        os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        _held.discard(descriptor)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was just forked may not have closed it yet
        os.close(descriptor)


def _lock(descriptor: int, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise UsageError(f"{path.parent} is in use by {holder}; wait for it, or end it first") from error


def _forget_locks() -> None:
    """Closes the locks of the parent in a forked child, which would otherwise hold them when the parent has died."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
