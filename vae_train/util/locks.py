"""Locks of folders: they end with their process, and other hosts respect them.

On one host the system decides (`flock`). Some network file systems grant such a lock to every host, and others to one;
they cannot be told apart. So the file of a lock also names its holder, whose heartbeat is the time at which the file
was last changed. Another host's lock is valid as long as its heartbeat is recent.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from typing_extensions import Self, override

from vae_train.util.errors import LockLostError, UsageError
from vae_train.util.files import FolderGuard, naming, open_itself, temporary_name

try:
    import fcntl
except ImportError:  # Windows has no flock, so folders are not locked there
    fcntl = None  # type: ignore[assignment]

HEARTBEAT_S = 15.0
"""Seconds between two heartbeats."""

LEASE_S = 60.0
"""Seconds after its last heartbeat for which a lock of another host is valid."""

RETRY_S = 0.2
"""Seconds between two attempts while waiting for another host."""

_held: set[int] = set()
"""File descriptors of this process's locks."""


class Lock:
    """A lock that is held within a `with` block; forked children do not inherit it.

    Args:
        path: the lock file, which names the holder. File systems without locks only have the heartbeat.
        wait: wait until the holder releases the lock.
    """

    def __init__(self, path: Path, wait: bool = False) -> None:
        self.path, self.wait, self.token = path, wait, secrets.token_hex(8)
        self._descriptor = -1
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def acquire(self) -> None:
        """Takes the lock, unless it is already held.

        Raises:
            UsageError: another process holds the lock; names it.
            RunError: the lock file is a symbolic link.
        """
        if fcntl is None or self._descriptor >= 0:
            return
        while not self._acquire():
            pass
        threading.Thread(target=self._beat, args=(self._descriptor,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._descriptor < 0:
            return
        with suppress(OSError):
            if _holder(self.path).get("token") == self.token:
                os.ftruncate(self._descriptor, 0)  # other hosts need not wait for the end of the lease
        self._close(self._descriptor)

    def is_held(self) -> bool:
        """Whether the file still names this holder."""
        return self._descriptor < 0 or _holder(self.path).get("token") == self.token

    def check(self) -> None:
        """Raises a LockLostError if the file no longer names this holder."""
        if not self.is_held():
            reason = f"was taken over by {_name(_holder(self.path))}" if self.path.exists() else "lost its lock file"
            raise LockLostError(f"{self.path.parent} {reason}; nothing further was saved")

    def _acquire(self) -> bool:
        """Takes the lock; returns False if the file changed meanwhile, so that the next attempt may succeed.

        The lock is a new file, which replaces the old one: its name changes hands in a single step.
        """
        old = open_itself(self.path, os.O_RDWR | os.O_CREAT)
        _held.add(old)
        try:
            granted = _flock(old, self.wait)
            holder = _holder(self.path)
            if granted is False:
                raise UsageError(f"{self.path.parent} is in use by {_name(holder)}; wait for it or end it first")
            if not _is_file(old, self.path):
                return False
            with temporary_name(self.path) as temporary, naming(self.path):
                new = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                _held.add(new)
                if holder and (granted is None or holder.get("host") != platform.node()):
                    # Both times are those of the file system's clock, so clocks of hosts may differ.
                    silent = os.fstat(new).st_mtime - os.fstat(old).st_mtime
                    if silent < LEASE_S:
                        self._close(new)
                        return self._wait_for(holder, silent)
                _flock(new, wait=True)
                entry = {"host": platform.node(), "process": os.getpid(), "token": self.token}
                os.write(new, json.dumps(entry | {"since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}).encode())
                os.replace(temporary, self.path)
                self._descriptor = new
            if self.is_held():
                return True
            self._close(new)  # a host to which the system granted the same lock was later
            return False
        finally:
            self._close(old)

    def _wait_for(self, holder: dict[str, Any], silent: float) -> bool:
        """Waits for another host; returns False.

        Raises:
            UsageError: `wait` is not set.
        """
        if not self.wait:
            left = f"if it has died, its lock ends in {LEASE_S - silent:.0f} s"
            raise UsageError(f"{self.path.parent} is in use by {_name(holder)}; wait for it or end it first ({left})")
        time.sleep(RETRY_S)
        return False

    def _beat(self, descriptor: int) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with suppress(OSError):
                os.utime(descriptor)

    def _close(self, descriptor: int) -> None:
        _held.discard(descriptor)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may still have it open
        with suppress(OSError):
            os.close(descriptor)


class LockGuard(FolderGuard):
    """Also notices that another process has taken over the lock of the folder.

    Args:
        folder, content: see `FolderGuard`.
        lock: the lock of the folder.
    """

    def __init__(self, folder: Path, content: str, lock: Lock) -> None:
        super().__init__(folder, content)
        self.lock = lock

    @override
    def is_in_place(self) -> bool:
        return super().is_in_place() and self.lock.is_held()

    @override
    def check(self) -> None:
        if not self.is_in_place():
            if super().is_in_place():
                self.lock.check()
            super().check()


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[Lock]:
    """Holds a lock within the block, see `Lock`."""
    with Lock(path, wait) as lock:
        yield lock


def try_lock(path: Path) -> Lock | None:
    """The lock of a file, which this process now holds; None if another process holds it."""
    lock = Lock(path)
    try:
        lock.acquire()
    except UsageError:
        return None
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process seems to hold the lock of a file, which need not exist. It is only looked at, not tried."""
    holder = _holder(path)
    if not holder:
        return False
    if holder.get("host") != platform.node():
        with suppress(OSError):
            return time.time() - path.stat().st_mtime < LEASE_S
        return False
    try:
        os.kill(int(holder["process"]), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass  # it is another user's
    return True


def is_locked_by(path: Path, process: int) -> bool:
    """Whether a process of this host holds, or held when it died, the lock of a file."""
    holder = _holder(path)
    return holder.get("host") == platform.node() and holder.get("process") == process


def _flock(descriptor: int, wait: bool) -> bool | None:
    """Locks a file; returns False if another process has locked it, and None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return None
    return True


def _holder(path: Path) -> dict[str, Any]:
    """What the file of a lock says of its holder; empty if it is free."""
    try:
        content = json.loads(path.read_bytes() or b"{}")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('process')} on {holder.get('host')} since {holder.get('since')}"


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _forget_locks() -> None:
    """Closes the parent's locks in a forked child, which would otherwise keep them after the parent's death."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
