from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commandline import TINY, Vae, rows, start, wait_for
from vae_train.util import locks
from vae_train.util.errors import FolderGoneError, LockLostError, UsageError
from vae_train.util.locks import Lock, LockGuard, is_locked, is_locked_by, locked

ENDLESS = ("epochs=100000", *TINY[1:], "threads=1", "trainer.checkpoint_seconds=0.2")

ANOTHER_HOST = """
import fcntl, platform, sys
fcntl.flock = lambda *_: None  # grants a lock to everybody, like some network file systems
platform.node = lambda: sys.argv.pop(1)
from vae_train.util import locks
locks.HEARTBEAT_S, locks.LEASE_S = 0.2, 15.0
name = platform.node()
platform.node = lambda: name
from vae_train.cli.main import main
main()
"""
"""`vae` on a host of the given name."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def on_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """This process is on another host from now on, whose file system grants a lock to everybody."""
    monkeypatch.setattr(platform, "node", lambda: name)
    monkeypatch.setattr(locks.fcntl, "flock", lambda *_: None)


def age(path: Path, seconds: float) -> None:
    now = time.time()
    os.utime(path, (now - seconds, now - seconds))


def test_another_host_respects_a_recent_heartbeat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(path):
        on_host(monkeypatch, "b")
        with pytest.raises(UsageError, match=rf"in use by process {os.getpid()} on .*if it has died.* in 60 s"):
            Lock(path).acquire()
        age(path, 50)
        with pytest.raises(UsageError, match="in use by"):
            Lock(path).acquire()
        assert is_locked(path)


def test_a_silent_lock_is_taken_over_and_its_holder_notices(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(path) as first:
        first.check()
        age(path, 61)
        on_host(monkeypatch, "b")
        assert not is_locked(path)
        with locked(path) as second:
            second.check()
            assert not first.is_held()
            with pytest.raises(LockLostError, match=r"was taken over by process .* on b since"):
                first.check()
        with pytest.raises(LockLostError):  # also when the second one has ended
            first.check()


def test_a_released_lock_is_free_for_other_hosts_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(path):
        pass
    assert not is_locked(path)
    on_host(monkeypatch, "b")
    with locked(path):
        assert is_locked_by(path, os.getpid())
    with locked(path):
        pass


def test_the_end_of_a_lost_lock_leaves_that_of_its_successor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Lock(path)
    first.acquire()
    age(path, 61)
    on_host(monkeypatch, "b")
    with locked(path) as second:
        first.__exit__()
        second.check()


def test_a_holder_renews_its_heartbeat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.01)
    with locked(path):
        age(path, 100)
        end = time.monotonic() + 10
        while time.time() - path.stat().st_mtime > 50:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_without_locks_of_the_system_heartbeats_decide(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(locks.errno.ENOLCK, "no locks")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    with locked(path), pytest.raises(UsageError, match="in use by"):
        Lock(path).acquire()
    with locked(path):
        pass


def test_waiting_for_a_lock(path: Path) -> None:
    code = "import sys; from vae_train.util.locks import *\nwith locked(Path(sys.argv[1]), wait=True): print('mine')"
    with locked(path):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    assert process.communicate(timeout=20)[0] == "mine\n"


def test_a_folder_that_is_taken_over_or_deleted_is_not_in_place(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    content = tmp_path / "run/config.yaml"
    content.touch()
    with locked(tmp_path / "run/.lock") as lock, LockGuard(content.parent, content.name, lock) as guard:
        assert guard.is_in_place()
        guard.check()
        lock.path.unlink()
        assert not guard.is_in_place()
        with pytest.raises(LockLostError, match="lost its lock file"):
            guard.check()
        content.unlink()
        with pytest.raises(FolderGoneError):
            guard.check()
        content.touch()
        lock.path.write_text(json.dumps({"token": lock.token}))


@pytest.mark.slow
def test_who_pauses_past_the_lease_stops_without_writing(vae: Vae, tmp_path: Path) -> None:
    run = Path("outputs/run")
    length = ("epochs=60", *TINY[1:], "threads=1", "trainer.checkpoint_seconds=0.1", "trainer.sample_every=60")
    assert vae("train", *length, "out=outputs/whole").code == 0

    def host(name: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", ANOTHER_HOST, name, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = host("a", "train", *length, f"out={run}")
    wait_for(run / "metrics.jsonl", '"epoch": 3')
    first.send_signal(signal.SIGSTOP)
    refused = host("b", "train", f"resume={run}")
    assert "is in use by process" in refused.communicate(timeout=60)[1]
    assert refused.returncode == 2
    time.sleep(16)
    second = host("b", "train", f"resume={run}")
    _, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    first.send_signal(signal.SIGCONT)
    assert f"{run} was taken over by another process" in first.communicate(timeout=60)[1]
    assert first.returncode == 1
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {run / "train.log"}
    assert rows(run) == rows(Path("outputs/whole"))


@pytest.mark.slow
def test_readers_do_not_hold_the_lock_of_a_killed_run(vae: Vae, tmp_path: Path) -> None:
    run = Path("outputs/run")
    readers = ("loader.storage=host", "loader.workers=2")
    process = start("train", *ENDLESS, *readers, f"out={run}", folder=Path())
    wait_for(run / "metrics.jsonl", '"epoch": 3')
    process.kill()
    process.communicate()
    answer = vae("train", f"resume={run}", "epochs=100001", "trainer.patience=1")
    assert "in use" not in answer.err
