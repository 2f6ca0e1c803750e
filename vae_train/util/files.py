"""Atomic writes, which never follow symbolic links, and folders that may vanish."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from typing_extensions import Self

from vae_train.util.errors import FolderGoneError, RunError

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class SavedPath(str):
    """A path from a saved run, which is not trusted: it may be read, but nothing is written to it."""


@contextmanager
def temporary_name(path: Path) -> Iterator[Path]:
    """Yields a unique name next to `path`, and removes the file of this name at the end."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def unreadable(path: Path) -> str:
    """Says why a file could not be used: it does not exist, cannot be opened, or is damaged."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return f"{path} does not exist"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return f"{path} is damaged"


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """Opens a new file for writing, which replaces `path` (even a symbolic link) if the block succeeds.

    Args:
        path: the file to replace.
        sync: wait until the content is on disk, so that it survives a power failure.
    """
    with temporary_name(path) as temporary, naming(path):
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a file in the errors of the system, which do not say what could not be written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def appending(path: Path) -> TextIO:
    """Opens a text file for appending, line-buffered.

    Raises:
        RunError: the path is a symbolic link.
    """
    return open(path, "a", 1, encoding="utf-8", opener=open_itself)


def open_itself(path: str | Path, flags: int) -> int:
    """Opens a file, but not the target of a symbolic link."""
    try:
        return os.open(path, flags | NO_FOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise RunError(f"{path} is a symbolic link, and vae does not write through links; remove it") from error


class FolderGuard:
    """Notices within a `with` block that a folder was deleted, emptied, renamed or replaced by another one.

    The folder stays open, so that the system does not give its inode to a new folder. Windows has no such descriptors,
    but does not delete folders with open files either.

    Args:
        folder: an existing folder.
        content: a file that it contains; without it the folder counts as emptied.
    """

    def __init__(self, folder: Path, content: str) -> None:
        self.folder, self.content = folder, content
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        if os.name == "posix":
            with naming(self.folder):
                self._descriptor = os.open(self.folder, os.O_RDONLY)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None and issubclass(kind, Exception):
                self.check()  # says more than the file that could not be read or written
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)

    def is_in_place(self) -> bool:
        """Whether the path still leads to the same folder with its content."""
        if self._descriptor is None:
            return True
        try:
            (self.folder / self.content).stat()
            return os.path.samestat(os.fstat(self._descriptor), self.folder.stat())
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)  # others are reported when writing

    def check(self) -> None:
        """Raises a FolderGoneError if the folder is no longer in place."""
        if not self.is_in_place():
            raise FolderGoneError(f"{self.folder} was deleted, emptied or renamed; nothing further was saved")
