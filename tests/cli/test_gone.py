"""Runs and sweeps whose folder is deleted, emptied, renamed or replaced while a command writes to it."""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from tests.commandline import TINY, Vae
from vae_train.runs.config import Config
from vae_train.runs.sweep_file import SweepJob, add_jobs
from vae_train.runs.worker import Take, work
from vae_train.util.errors import FolderGoneError

SMALL = (*TINY[1:-1], "trainer.log_every=5", "trainer.checkpoint_seconds=0", "threads=1")
GONE = "was deleted, emptied or renamed; nothing further was saved"


def delete(folder: Path) -> None:
    folder.rename("trash")  # at once, as nothing is written in between
    shutil.rmtree("trash")


def empty(folder: Path) -> None:
    for path in [folder / "config.yaml", *folder.iterdir()]:
        if path.is_dir():
            path.rename(f"was-{path.name}")
        else:
            path.unlink(missing_ok=True)


def rename(folder: Path) -> None:
    folder.rename("elsewhere")


def replace(folder: Path) -> None:
    folder.rename("elsewhere")
    folder.mkdir()
    (folder / "config.yaml").write_text("mine")


def after(path: Path, text: str, action: Callable[[], None]) -> threading.Thread:
    """Starts a thread that acts once a file contains a text."""

    def wait() -> None:
        end = time.monotonic() + 60
        while not (path.exists() and text in path.read_text()) and time.monotonic() < end:
            time.sleep(0.005)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# TensorBoard writes in a thread, whose error the main thread reports.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("change", [delete, empty, rename, replace])
def test_training_ends_and_writes_nothing_anew(vae: Vae, change: Callable[[Path], None]) -> None:
    folder, later = Path("r"), {}

    def act() -> None:
        change(folder)
        later.update(content(folder) if folder.exists() else {})

    thread = after(folder / "metrics.jsonl", '"epoch": 3', act)
    answer = vae("train", *SMALL, "epochs=100000", "logger=tensorboard", f"out={folder}")
    thread.join()
    assert (answer.code, answer.err) == (1, f"vae train: {folder} {GONE}\n")
    assert folder.exists() == (change in (empty, replace))
    if change is not empty:  # train.log and others may be written until training notices
        assert content(folder) == later if folder.exists() else not later
    assert not (folder / "checkpoints").exists()
    assert not (folder / "summary.json").exists()


def test_a_deleted_job_does_not_stop_a_sweep(vae: Vae) -> None:
    folder = Path("outputs/sweeps/s")
    job = folder / "0-epochs=100000"
    thread = after(job / "metrics.jsonl", '"epoch": 3', lambda: delete(job))
    answer = vae("train", *SMALL, "logger=none", "-m", "epochs=100000,2", "sweep=s")
    thread.join()
    assert answer.code == 1
    assert f"failed: {job} {GONE}" in answer.out
    assert "1 of 2 jobs done" in answer.out
    with (folder / "sweep.csv").open() as file:
        rows = [(row["status"], row["error"]) for row in csv.DictReader(file)]
    assert rows == [("failed", f"{job} {GONE}"), ("done", "")]
    assert not job.exists()


def test_a_deleted_sweep_ends(tmp_path: Path) -> None:
    folders = []

    def train(take: Take) -> None:
        folders.append(take.job.folder)
        delete(sweep)

    sweep = Path("outputs/sweeps/s")
    sweep.mkdir(parents=True)
    config = Config({"model": {}, "data": {}})
    add_jobs(sweep, {SweepJob(f"key {n}", "", (f"seed={n}",), ()): config for n in (1, 2)})

    with pytest.raises(FolderGoneError, match=f"outputs/sweeps/s {GONE}"):
        work(sweep, train)
    assert folders == ["0-seed=1"]
    assert not Path("outputs/sweeps/s").exists()


@pytest.mark.parametrize("command", ["eval", "fit-prior"])
def test_other_commands_do_not_write_it_anew(
    vae: Vae, trained: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is deleted once its data is read, which is after its weights."""
    module = f"vae_train.cli.commands.{command.replace('-', '_')}"
    read = import_module(module).load_data
    asked = []

    def reading(*arguments: object) -> object:
        asked.append(arguments)
        if len(asked) > (command == "eval") and trained.exists():
            delete(trained)
        return read(*arguments)

    monkeypatch.setattr(f"{module}.load_data", reading)
    answer = vae(command, f"run={trained}")
    assert (answer.code, answer.err) == (1, f"vae {command}: {trained} {GONE}\n")
    assert not trained.exists()
