"""`vae` in forked children of a process that has imported everything, with faults injected into its file operations."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
PATH_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
FOREIGN_EVENTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "ctypes.dlopen")
ESCAPED = 97
"""Exit code of a child that ran foreign code or wrote outside of its folder."""
TIMED_OUT = -1000


class Answer(NamedTuple):
    """How a command ended: its exit code (negative for a signal) and what it printed."""

    code: int
    out: str
    err: str
    seconds: float


def call(
    arguments: Sequence[str], folder: Path, prepare: Callable[[], object] | None = None, timeout: float = 120
) -> Answer:
    """Runs `vae` in a forked child.

    Args:
        arguments: the command line without the program's name.
        folder: the working directory.
        prepare: called in the child before the command, for example to inject a fault.
        timeout: seconds, after which the child is killed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _command(arguments, folder, prepare, out.fileno(), err.fileno())
        status = _wait(child, start + timeout)
        seconds = time.monotonic() - start
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Answer(TIMED_OUT if status is None else os.waitstatus_to_exitcode(status), *texts, seconds)


def _command(arguments: Sequence[str], folder: Path, prepare: Callable[[], object] | None, out: int, err: int) -> None:
    """The child: never returns."""
    from vae_train.cli.main import run

    code = 98
    try:
        os.chdir(folder)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w"), line_buffering=True) for number in (1, 2))
        if prepare is not None:
            prepare()
        code = run(list(arguments))
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, end: float) -> int | None:
    """The child's wait status; None if it had to be killed."""
    while True:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return status
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


def on_write(folder: Path, action: Callable[[int, str], None]) -> None:
    """Calls `action` with number and path before every operation of this process that changes a file below `folder`."""
    count, root = 0, str(folder.resolve())

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        path = changed_path(event, arguments)
        if path is not None and os.path.abspath(path).startswith(root):
            count += 1
            action(count, path)

    sys.addaudithook(hook)


def changed_path(event: str, arguments: tuple[object, ...]) -> str | None:
    """The path that an audited operation is about to change; None for any other event."""
    changes = event in PATH_EVENTS
    if event == "open":
        path, _, flags = arguments
        changes = isinstance(flags, int) and bool(flags & WRITE_FLAGS) and not isinstance(path, int)
    if not changes:
        return None
    return os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else None


def kill_at(number: int, folder: Path) -> Callable[[], None]:
    """Ends the child by SIGKILL before change `number` of a file below `folder`."""

    def action(count: int, path: str) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: on_write(folder, action)


def fail_from(number: int, folder: Path, error: int) -> Callable[[], None]:
    """Lets change `number` of a file below `folder` and all later ones fail with an `errno`."""

    def action(count: int, path: str) -> None:
        if count >= number:
            raise OSError(error, os.strerror(error), path)

    return lambda: on_write(folder, action)


def count_changes(record: Path, folder: Path) -> Callable[[], None]:
    """Appends the path of every change of a file below `folder` to the file `record`."""
    descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def action(count: int, path: str) -> None:
        os.write(descriptor, f"{path}\n".encode())

    return lambda: on_write(folder, action)


def forbid_escape(folder: Path) -> None:
    """Ends the child with `ESCAPED` as soon as it starts a program or changes a file outside of `folder`."""
    allowed = (
        str(folder.resolve()),
        tempfile.gettempdir() + "/torch",
        "/dev/",
        *(str(Path.home() / name) for name in (".cache", ".config")),
    )

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        path = changed_path(event, arguments)
        escapes = path is not None and not os.path.abspath(path).startswith(allowed) and "__pycache__" not in path
        starts = event in FOREIGN_EVENTS[:-2] or (event == FOREIGN_EVENTS[3] and "git" not in str(arguments[1]))
        if escapes or (starts and "git" not in str(arguments)):
            os.write(2, f"escaped: {event} {arguments}\n".encode())
            os._exit(ESCAPED)

    sys.addaudithook(hook)
