"""`scripts/bench --against COMMIT`: the speed of training at another commit and here, interleaved in one run.

Both versions are used through their command line alone, so that any commit with `vae train` can be measured. A turn is
a whole process; its speed is the median of `images_per_second` over the windows of its metrics.jsonl, which leave out
validation, previews and checkpoints. The two versions take turns, and ratios are formed within each repetition.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measurement import Measurement, speedup
from benchmarks.pool import ROOT, Log
from benchmarks.report import markdown_table, show
from benchmarks.vae_train_loop import workload_overrides, write_images
from benchmarks.workload import MNIST_SHAPE, Settings, Workload

NUM_IMAGES = 12_800


@dataclass(frozen=True)
class Course:
    """A workload and how long it is trained in a turn."""

    workload: Workload
    epochs: int
    log_every: int
    """Steps of a window."""
    dropped_windows: int
    """First windows that do not count, since memory is allocated and code is loaded in them."""


COURSES = {
    "mlp-128": Course(Workload("mlp", MNIST_SHAPE, 128), epochs=24, log_every=50, dropped_windows=8),
    "conv-28": Course(Workload("conv", MNIST_SHAPE, 128), epochs=1, log_every=10, dropped_windows=2),
}


def measure(commit: str, device: str, threads: int, repeats: int, log: Log) -> dict[str, Any]:
    """Images per second at a commit and here, and how many times as fast this version is.

    Args:
        commit: any name that git understands.
        device: "cpu" or "cuda".
        threads: PyTorch's threads.
        repeats: turns of each version and workload.
        log: reports progress.
    """
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, worktree(commit, Path(name) / "checkout") as checkout:
        versions = {commit: checkout, "here": ROOT}
        for course_name, course in COURSES.items():
            settings = Settings(course.workload, NUM_IMAGES, device, threads)
            images = write_images(settings, Path(name) / "images.npz")
            rates: dict[str, list[float]] = {version: [] for version in versions}
            for repeat in range(repeats):
                for version in list(versions) if repeat % 2 == 0 else reversed(versions):
                    out = Path(name) / f"{course_name}-{version.replace('/', '-')}-{repeat}"
                    overrides = [*turn_overrides(course, settings), f"data.path={images}", f"out={out}"]
                    rates[version].append(train(versions[version], overrides, out, course.dropped_windows))
                last = {version: values[-1] for version, values in rates.items()}
                log(f"{course_name} {repeat + 1}/{repeats}: " + ", ".join(f"{k} {v:,.0f}" for k, v in last.items()))
            results[course_name] = summarize(course.workload, rates, commit)
    return results


def turn_overrides(course: Course, settings: Settings) -> list[str]:
    """The overrides of `vae train` that every version understands; data.path= and out= are missing."""
    training = [f"epochs={course.epochs}", f"trainer.log_every={course.log_every}", "trainer.sample_every=1000"]
    run = ["logger=none", "execution=eager", f"device={settings.device}", f"threads={settings.threads}"]
    return [*workload_overrides(course.workload), *training, *run]


def train(checkout: Path, overrides: Sequence[str], out: Path, dropped_windows: int) -> float:
    """Runs `vae train` of a checkout and returns its median images per second."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "vae_train", "train", *overrides]
    process = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{process.stderr[-2000:]}")
    return images_per_second(out / "metrics.jsonl", dropped_windows)


def images_per_second(metrics: Path, dropped_windows: int) -> float:
    """The median over the windows of a run.

    Args:
        metrics: the run's metrics.jsonl.
        dropped_windows: first windows that do not count.
    """
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    windows = [row["images_per_second"] for row in rows if (row["split"], row["scope"]) == ("train", "step")]
    return statistics.median(windows[dropped_windows:])


def summarize(workload: Workload, rates: dict[str, list[float]], commit: str) -> dict[str, Any]:
    """Images per second of both versions, and the ratio with its range over repetitions."""
    seconds = {version: [1 / rate for rate in values] for version, values in rates.items()}
    return {
        "title": workload.title,
        "images_per_second": {version: Measurement.of(values).as_json() for version, values in rates.items()},
        "speedup": speedup(seconds["here"], seconds[commit]).as_json(),
    }


def table(results: dict[str, Any], commit: str) -> str:
    """The results as Markdown."""
    rows = [
        [row["title"], *(show(row["images_per_second"][version], 0) for version in (commit, "here")),
         show(row["speedup"], 3)]
        for row in results.values()
    ]  # fmt: skip
    head = ["execution=eager", f"{commit}, images/s", "here, images/s", "ratio"]
    return f"Every value is median (min – max).\n\n{markdown_table(head, rows)}"


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """A temporary checkout of a commit."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)
