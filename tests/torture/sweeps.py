"""A sweep of several workers that is killed again and again, compared with one that is left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.torture.reports import Report

KILLS = 5
COMMAND = (
    *("train", "data=digits", "model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "logger=none", "threads=1"),
    *("epochs=80", "trainer.checkpoint_seconds=0.5", "trainer.sample_every=1000"),
    *("-m", "beta=1,2,4,8", "latent_dim=2,4", "seed=0,1,2", "workers=2"),
)
LONGEST_S = 600
PAUSES_S = (4.0, 12.0)
"""Shortest and longest time before a kill, which includes the start of the processes."""


def killed_sweep(folder: Path, rng: random.Random, results: Callable[[Path], Any]) -> Report:
    """Kills the main process of a sweep of 24 jobs and its workers in turn; the same command finishes it.

    Args:
        folder: an empty folder.
        rng: chooses the moments and the victims.
        results: what two equal trainings of a run share.
    """
    report = Report(f"sweep of 24 jobs and 2 workers, killed {KILLS} times")
    _start("whole", folder).wait(LONGEST_S)
    for number in range(KILLS):
        process = _start("killed", folder)
        time.sleep(rng.uniform(*PAUSES_S))
        workers = _workers(folder)
        if number % 2 and workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            time.sleep(rng.uniform(0, 1))
        process.kill()
        process.wait()
        for worker in workers if number == KILLS - 1 else []:  # all at once
            _kill(worker)
    end = time.monotonic() + LONGEST_S
    while any(map(_is_alive, _workers(folder))) and time.monotonic() < end:
        time.sleep(0.1)  # they notice that their parent has gone
    finished = _start("killed", folder)
    finished.wait(LONGEST_S)
    jobs = json.loads((folder / "outputs/sweeps/whole/sweep.json").read_text())["jobs"]
    for job in jobs:
        whole, killed = (results(folder / "outputs/sweeps" / name / job["folder"]) for name in ("whole", "killed"))
        report.judge(job["folder"], None if whole == killed else "is another run than in the sweep that was left alone")
    if finished.returncode != 0:
        report.failures.append(f"the last command ended with code {finished.returncode}")
    return report


def _start(name: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts or continues a sweep."""
    with (folder / f"{name}.log").open("ab") as log:
        command = [sys.executable, "-m", "vae_train", *COMMAND, f"sweep={name}"]
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def _workers(folder: Path) -> list[int]:
    """The processes that hold the lock of a job."""
    holders = [json.loads(path.read_text() or "{}") for path in folder.glob("outputs/sweeps/killed/*/.lock")]
    return [holder["process"] for holder in holders if holder and _is_alive(holder["process"])]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _kill(process: int) -> None:
    if _is_alive(process):
        os.kill(process, signal.SIGKILL)
