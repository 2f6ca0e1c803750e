"""Measures training against a tutorial's loop, against pythae and against the limits of the hardware.

Run by scripts/bench. Every implementation runs in a separate process, and they take turns on one machine. Every
value is a median with its range. Nothing passes or fails by a time, but implementations whose losses disagree are not
timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import (
    against,
    apply,
    compare,
    epochs,
    io_overhead,
    loading,
    machine,
    nll,
    report,
    scaling,
    startup,
    step_memory,
    tune,
)
from benchmarks.compare import Schedule, WorkloadMismatch
from benchmarks.pool import ChildProcess, ProcessError
from benchmarks.workload import MNIST_SHAPE, Settings, Workload

MNIST_SIZE, QUICK_SIZE = 60_000, 8_192

WORKLOADS = {"mlp-128": Workload("mlp", MNIST_SHAPE, 128), "conv-28": Workload("conv", MNIST_SHAPE, 128)}
SCHEDULES = {
    "mlp-128": Schedule(warmup_steps=800, loss_window=200, tolerance=0.02, turn_seconds=1.0, repeats=7),
    "conv-28": Schedule(warmup_steps=60, loss_window=10, tolerance=0.05, turn_seconds=1.0, repeats=7),
}
QUICK_SCHEDULES = {
    "mlp-128": Schedule(warmup_steps=150, loss_window=50, tolerance=0.04, turn_seconds=0.4, repeats=3),
    "conv-28": Schedule(warmup_steps=12, loss_window=4, tolerance=0.15, turn_seconds=0.4, repeats=3),
}
PARTS = (*WORKLOADS, "epochs", "io_overhead", "startup", "scaling", "loading", "nll", "apply", "step_memory")


@dataclass(frozen=True)
class Plan:
    """The options that the parts depend on."""

    device: str
    threads: int
    repeats: int | None
    """Overrides the repetitions of every part."""
    quick: bool
    folder: Path | None = None
    """Images for "loading"; None generates some."""

    def settings(self, workload: Workload) -> Settings:
        """What the implementations of a workload share."""
        return Settings(workload, QUICK_SIZE if self.quick else MNIST_SIZE, self.device, self.threads)

    def schedule(self, name: str) -> Schedule:
        """How long a workload is measured."""
        schedule = (QUICK_SCHEDULES if self.quick else SCHEDULES)[name]
        return replace(schedule, repeats=self.repeats or schedule.repeats)

    def num_repeats(self, default: int, quick: int) -> int:
        """Repetitions of a part."""
        return self.repeats or (quick if self.quick else default)


def parts(plan: Plan) -> dict[str, Callable[[], dict[str, Any]]]:
    """Name -> function that measures a part, in order."""

    def comparison(name: str) -> Callable[[], dict[str, Any]]:
        return lambda: compare.measure(compare.workers(plan.settings(WORKLOADS[name])), plan.schedule(name), log)

    mlp, device, threads, quick = plan.settings(WORKLOADS["mlp-128"]), plan.device, plan.threads, plan.quick
    warmup = 100 if quick else 350  # another epoch follows before the timing
    repeats = plan.num_repeats
    return {name: comparison(name) for name in WORKLOADS} | {
        "epochs": lambda: epochs.measure(mlp, warmup, repeats(5, 2), log),
        "io_overhead": lambda: io_overhead.measure(mlp, warmup, repeats(7, 2), log),
        "startup": lambda: startup.measure(device, repeats(5, 1)),
        "scaling": lambda: scaling.measure(device, threads, 0.2 if quick else 0.4, repeats(3, 2), log, quick),
        "loading": lambda: loading.measure(
            device, threads, plan.folder, quick, 0.4 if quick else 0.7, repeats(5, 2), log
        ),
        "nll": lambda: nll.measure(device, threads, repeats(7, 2), log),
        "apply": lambda: apply.measure(device, threads, repeats(5, 1), quick, log),
        "step_memory": lambda: step_memory.measure(device, threads, quick, log),
    }


def log(line: str) -> None:
    """Prints a line of progress."""
    print(f"  {line}", file=sys.stderr, flush=True)


def main() -> int:
    """The command line of scripts/bench."""
    options = _parse_options()
    with ChildProcess() as process:
        software = process.run("machine", "software")
    device = options.device or ("cuda" if software["gpu"] else "cpu")
    if device == "cuda" and not software["gpu"]:
        print("bench: no CUDA device", file=sys.stderr)
        return 2
    threads = options.threads or software["threads"]
    if options.tune:
        return tune.main(device, software["threads"], options.repeats, options.quick, log)
    results = {
        "command": _command(options),
        "date": f"{datetime.now():%Y-%m-%d}",
        "machine": machine.describe(software, device, threads),
    }
    if options.against:
        return _compare_with_commit(options, results, device, threads)
    plan = Plan(device, threads, options.repeats, options.quick, options.folder)
    return _measure_parts(plan, options, results)


def _compare_with_commit(options: argparse.Namespace, results: dict[str, Any], device: str, threads: int) -> int:
    """Measures --against and prints its table."""
    repeats = options.repeats or (2 if options.quick else 7)
    results["against"] = against.measure(options.against, device, threads, repeats, log)
    print(against.table(results["against"], options.against))
    if options.json:
        report.write(results, options.json)
    return 0


def _measure_parts(plan: Plan, options: argparse.Namespace, results: dict[str, Any]) -> int:
    """Measures parts, prints their tables and writes the results of a complete run; returns 1 if a part failed."""
    start = time.perf_counter()
    results |= {"parts": {}, "failed": {}}
    for name, measure in parts(plan).items():
        if name not in (options.only or PARTS):
            continue
        print(f"{name} ({time.perf_counter() - start:.0f} s so far)", file=sys.stderr, flush=True)
        try:
            results["parts"][name] = measure()
        except (ProcessError, WorkloadMismatch) as error:
            print(f"bench: {name}: {error}", file=sys.stderr, flush=True)
            results["failed"][name] = str(error).splitlines()[0]
    results["seconds"] = round(time.perf_counter() - start)
    print(report.bench_tables(results))
    is_complete = not (options.only or options.quick)
    path = options.json or (report.results_path(results) if is_complete else None)
    if path is None:
        print("not written: only complete runs are, or use --json FILE")
    else:
        report.write(results, path)
        if options.json is None:
            report.rewrite_readme()
        print(f"{results['seconds']} s · {os.path.relpath(path)}")
    return int(bool(results["failed"]))


def _command(options: argparse.Namespace) -> str:
    """The command line, without the path of the results."""
    words = ["scripts/bench"]
    for name, value in vars(options).items():
        if name == "json" or value is None or value is False:
            continue
        shown = value.name if isinstance(value, Path) else value  # its parents belong to this machine
        values = shown if isinstance(shown, list) else [] if shown is True else [shown]
        words += [f"--{name}", *map(str, values)]
    return " ".join(words)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if available")
    parser.add_argument("--threads", type=int, help="PyTorch's threads, for all implementations (default: its choice)")
    parser.add_argument("--repeats", type=int, help="repetitions of everything (default: 3 to 7)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"some of: {' '.join(PARTS)}")
    parser.add_argument(
        "--folder", type=Path, help="images for loading: one folder per class, all of one size (default: generated)"
    )
    parser.add_argument("--quick", action="store_true", help="two minutes, to try it out: fewer steps and repetitions")
    parser.add_argument("--tune", action="store_true", help="print which settings are fastest on this machine")
    parser.add_argument("--against", metavar="COMMIT", help="compare eager training with another commit, interleaved")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    options = parser.parse_args()
    for name in ("repeats", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: must be at least 1")
    if options.folder is not None and (options.tune or "loading" not in (options.only or PARTS)):
        parser.error("--folder only applies to the part loading")
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder={options.folder}: not a folder")
    return options


if __name__ == "__main__":
    sys.exit(main())
