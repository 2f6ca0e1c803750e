"""A PostgreSQL server on the loopback device, for tests of studies in a database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

PROGRAMS = Path("/usr/lib/postgresql")
"""Where Debian's package has the server's programs, by version."""

USER, PASSWORD = "postgres", "p@ss:word/"
"""Debian's package creates the user, which the server runs as if a test runs as root."""


def programs() -> Path:
    """The folder of the newest server; skips the test without one."""
    found = sorted(PROGRAMS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    pytest.importorskip("psycopg")
    return found[-1].parent


def _run(*command: object) -> None:
    prefix = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*prefix, *map(str, command)], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


@contextmanager
def postgres() -> Iterator[str]:
    """Starts a server with an empty database; yields its URL with the password."""
    folder = Path(tempfile.mkdtemp(prefix="vae-postgres-"))
    data, secret, control = folder / "data", folder / "secret", programs() / "pg_ctl"
    secret.write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, secret):
            shutil.chown(path, USER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    try:
        _run(programs() / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8")
        _run(control, "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            yield f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
        finally:
            _run(control, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
