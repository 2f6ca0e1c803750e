"""Measures training against a tutorial's loop, against pythae and against what the hardware could do.

Run by scripts/bench. All contenders live in processes of their own and take turns on one machine; every figure is a
median with its spread. Nothing here passes or fails by a time, but contenders that do not learn alike are not timed.
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

from benchmarks import compare, loading, nll, report, scaling, startup, tune, whole
from benchmarks.compare import Pace, Unequal
from benchmarks.team import Broken, Process
from benchmarks.work import MNIST_SHAPE, Setting, Work

MNIST_SIZE, COLOUR_SIZE, QUICK_SIZE = 60_000, 2_048, 8_192

WORKS = {
    "mlp-128": Work("mlp", MNIST_SHAPE, 128),
    "mlp-1024": Work("mlp", MNIST_SHAPE, 1024),
    "conv-28": Work("conv", MNIST_SHAPE, 128),
    "conv-32": Work("conv", (3, 32, 32), 128),
    "conv-64": Work("conv", (3, 64, 64), 128),
}
COMPILED = ("mlp-128", "conv-28")
"""Where compiled steps compete; elsewhere compiling would take longer than the rest."""

PACES = {
    "mlp-128": Pace(warm=800, window=200, band=0.02, turn=1.0, repeats=7),
    "mlp-1024": Pace(warm=200, window=50, band=0.03, turn=1.0, repeats=5),
    "conv-28": Pace(warm=60, window=10, band=0.05, turn=1.0, repeats=5),
    "conv-32": Pace(warm=30, window=10, band=0.03, turn=1.0, repeats=5),
    "conv-64": Pace(warm=70, window=15, band=0.05, turn=1.2, repeats=5),
}
QUICK_PACES = {
    "mlp-128": Pace(warm=150, window=50, band=0.04, turn=0.4, repeats=3),
    "mlp-1024": Pace(warm=40, window=10, band=0.05, turn=0.4, repeats=3),
    "conv-28": Pace(warm=12, window=4, band=0.15, turn=0.4, repeats=3),
    "conv-32": Pace(warm=8, window=3, band=0.1, turn=0.4, repeats=3),
    "conv-64": Pace(warm=6, window=2, band=0.2, turn=0.5, repeats=2),
}
QUICK_WORKS = ("mlp-128", "conv-28", "conv-32")
PARTS = (*WORKS, "epochs", "overhead", "startup", "scaling", "loading", "nll")


@dataclass(frozen=True)
class Run:
    """What was asked for."""

    device: str
    threads: int
    images: int
    repeats: int | None
    """Overrides the repetitions of every part."""
    quick: bool
    folder: Path | None = None
    """The images that "loading" reads; None for generated ones."""

    def setting(self, work: Work) -> Setting:
        """What the contenders of a work share."""
        most = QUICK_SIZE if self.quick else MNIST_SIZE
        count = most if work.shape == MNIST_SHAPE else COLOUR_SIZE
        return Setting(work, max(work.batch_size, min(self.images, count)), self.device, self.threads)

    def pace(self, name: str) -> Pace:
        """How long a work is measured."""
        pace = (QUICK_PACES if self.quick else PACES)[name]
        return replace(pace, repeats=self.repeats or pace.repeats)

    def often(self, normally: int, quickly: int) -> int:
        """Repetitions of a part."""
        return self.repeats or (quickly if self.quick else normally)


def parts(run: Run) -> dict[str, Callable[[], dict[str, Any]]]:
    """Everything that can be measured, in order."""

    def comparison(name: str) -> Callable[[], dict[str, Any]]:
        competing = compare.members(run.setting(WORKS[name]), name in COMPILED, everybody=not run.quick)
        return lambda: compare.measure(competing, run.pace(name), say)

    small = run.setting(WORKS["mlp-128"])
    warm = 100 if run.quick else 350  # another epoch follows before the timing
    return {name: comparison(name) for name in WORKS} | {
        "epochs": lambda: whole.epochs(small, warm, run.often(4, 2), say),
        "overhead": lambda: whole.overhead(small, warm, run.often(7, 2), say),
        "startup": lambda: startup.measure(run.device, run.often(5, 1)),
        "scaling": lambda: scaling.measure(
            run.device, run.threads, 0.2 if run.quick else 0.4, run.often(3, 2), say, run.quick
        ),
        "loading": lambda: loading.measure(
            run.device, run.threads, run.folder, run.quick, 0.4 if run.quick else 0.7, run.often(5, 2), say
        ),
        "nll": lambda: nll.measure(run.device, run.threads, run.often(7, 2), say),
    }


def say(line: str) -> None:
    """Tells how far it is."""
    print(f"  {line}", file=sys.stderr, flush=True)


def main() -> int:
    """The command line of scripts/bench."""
    options = _options()
    with Process() as process:
        machine = process.ask("machine")
    device = options.device or ("cuda" if machine["gpu"] else "cpu")
    if device == "cuda" and not machine["gpu"]:
        print("bench: there is no CUDA device here", file=sys.stderr)
        return 2
    threads = options.threads or machine["threads"]
    if options.tune:
        return tune.main(device, machine["threads"], options.repeats, options.quick, say)
    run = Run(device, threads, options.images, options.repeats, options.quick, options.folder)
    start = time.perf_counter()
    result: dict[str, Any] = {
        "command": _command(options),
        "date": f"{datetime.now():%Y-%m-%d}",
        "machine": report.machine(machine, device, threads),
        "parts": {},
        "failed": {},
    }
    for name, measure in parts(run).items():
        if name not in (options.only or _parts(options.quick)):
            continue
        print(f"{name} ({time.perf_counter() - start:.0f} s so far)", file=sys.stderr, flush=True)
        try:
            result["parts"][name] = measure()
        except (Broken, Unequal) as error:
            print(f"bench: {name}: {error}", file=sys.stderr, flush=True)
            result["failed"][name] = str(error).splitlines()[0]
    result["seconds"] = round(time.perf_counter() - start)
    print(report.tables(result))
    complete = not (options.only or options.quick)
    path = options.json or (report.path(result) if complete else None)
    if path is None:
        print("not written: only a whole run is (or name a file with --json)")
        return int(bool(result["failed"]))
    report.write(result, path)
    if options.json is None:
        report.rewrite_readme()
    print(f"{result['seconds']} s · {os.path.relpath(path)}")
    return int(bool(result["failed"]))


def _parts(quick: bool) -> tuple[str, ...]:
    """What is measured where nothing is named."""
    return tuple(name for name in PARTS if not quick or name not in WORKS or name in QUICK_WORKS)


def _command(options: argparse.Namespace) -> str:
    """What was typed, but for where the figures go."""
    words = ["scripts/bench"]
    for name, value in vars(options).items():
        if name == "json" or value is None or value is False or (name == "images" and value == MNIST_SIZE):
            continue
        shown = value.name if isinstance(value, Path) else value  # where it lies is nobody's business
        given = shown if isinstance(shown, list) else [] if shown is True else [shown]
        words += [f"--{name}", *map(str, given)]
    return " ".join(words)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--threads", type=int, help="PyTorch's threads, for all contenders (default: its choice)")
    parser.add_argument("--images", type=int, default=MNIST_SIZE, help=f"training images (default {MNIST_SIZE})")
    parser.add_argument("--repeats", type=int, help="repetitions of everything (default: 3 to 7)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"some of: {' '.join(PARTS)}")
    parser.add_argument(
        "--folder", type=Path, help="images for loading: a folder per class, all of one size (default: generated ones)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="some two minutes, to try it out: fewer works, steps and repetitions"
    )
    parser.add_argument("--json", type=Path, help="where the figures go (default benchmarks/<kind of machine>.json)")
    parser.add_argument(
        "--tune", action="store_true", help="tell which settings pay on this machine instead, in ten minutes"
    )
    options = parser.parse_args()
    if not 1024 <= options.images <= MNIST_SIZE:
        parser.error(f"--images is {options.images}, must be from 1024 to {MNIST_SIZE}")
    for name in ("repeats", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}, must be at least 1")
    if options.folder is not None and (options.tune or "loading" not in (options.only or PARTS)):
        parser.error("--folder is for the part loading, which is not asked for")
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder is {options.folder}, which is no folder (seen from {Path.cwd()})")
    return options


if __name__ == "__main__":
    sys.exit(main())
