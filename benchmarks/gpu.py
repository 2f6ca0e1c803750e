"""Checks the package on a CUDA machine in under eight minutes: tests, a training, a resumed training, timings.

Run by scripts/gpu_check. Stages that this machine lacks something for are skipped, and the final table says why. A
stage that crashes or hangs does not affect the others.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu_stages import PROFILE, STAGES, TIMINGS, Context, Outcome, run_stages
from benchmarks.machine import slug
from benchmarks.report import RESULTS, comparison_table, rewrite_readme

TIME_LIMIT_SECONDS = 465
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def main() -> int:
    """The command line of scripts/gpu_check; returns 1 if a stage failed."""
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: try the logic, tiny settings")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="run only these")
    parser.add_argument("--only-timings", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_timings:
        measure_timings(options.device, options.only_timings)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="gpu_check-"))
    try:
        outcomes = run_stages(build_context(options.device, folder), options.stages)
        timings = json.loads((folder / TIMINGS).read_text()) if (folder / TIMINGS).is_file() else None
        profile = _read_profile(folder / PROFILE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _report(options, outcomes, timings, profile)
    return int(any(outcome.result == "failed" for outcome in outcomes))


def measure_timings(device: str, path: Path) -> None:
    """Measures what the stage `timings` reports and writes it to `path`."""
    from benchmarks.bench import MNIST_SIZE, WORKLOADS
    from benchmarks.compare import Schedule, measure
    from benchmarks.pool import Worker
    from benchmarks.workload import Settings
    from vae_train.util.runtime import cores

    cuda = device == "cuda"
    settings = Settings(WORKLOADS["mlp-128"], MNIST_SIZE if cuda else 1024, device, cores() if cuda else 1)
    schedule = Schedule(300, 100, 0.03, 0.7, 5) if cuda else Schedule(40, 20, 0.1, 0.1, 1)
    loops = [
        Worker(f"pytorch_loop, workers={n}", "pytorch_loop", settings, {"workers": n})
        for n in ((1, 4) if cuda else (1,))
    ]
    own = [Worker("vae_train", "vae_train_loop", settings)]
    for execution in ("eager", "compile") if cuda else ():
        own.append(Worker(f"vae_train, {execution}", "vae_train_loop", settings, {"execution": execution}))
    workers = [*loops, *own, Worker("roofline", "roofline", settings)]
    path.write_text(json.dumps(measure(workers, schedule, print)))


def build_context(device: str, folder: Path) -> Context:
    """Looks for the data, and reports if it is missing."""
    tiny = device == "cpu"
    root = unpack_mnist(os.environ.get("VAE_DATA", "data"), folder)
    if root is None:
        print("MNIST was not found in VAE_DATA/MNIST/raw: training on digits, timing on random images")
    environment = dict(os.environ, VAE_DATA=root or str(folder / "nothing"), PYTHONUNBUFFERED="1")
    data = "mnist" if root and not tiny else "digits"
    return Context(device, data, folder, environment, tiny, time.monotonic() + TIME_LIMIT_SECONDS)


def unpack_mnist(place: str, folder: Path) -> str | None:
    """A folder in which torchvision finds MNIST; None if `place` does not contain it.

    Args:
        place: contains MNIST/raw, whose files may be compressed.
        folder: where compressed files are unpacked.
    """
    raw = Path(place) / "MNIST" / "raw"
    if all((raw / name).is_file() for name in MNIST_FILES):
        return str(Path(place).absolute())
    if not all((raw / name).is_file() or (raw / f"{name}.gz").is_file() for name in MNIST_FILES):
        return None
    target = folder / "data" / "MNIST" / "raw"
    target.mkdir(parents=True)
    for name in MNIST_FILES:
        path = raw / name
        with path.open("rb") if path.is_file() else gzip.open(raw / f"{name}.gz") as source:
            (target / name).write_bytes(source.read())
    return str(folder / "data")


def report_path(device: str, gpu: str | None) -> Path | None:
    """The path of the results; None without a GPU, unless OUT names a folder."""
    if os.environ.get("OUT"):
        return Path(os.environ["OUT"]) / "gpu_check.json"
    return None if device == "cpu" or gpu is None else RESULTS / f"gpu-{slug(gpu)}.json"


def _read_profile(folder: Path) -> tuple[Any, str] | None:
    """The rows and the kernel table of `benchmarks.gpu_idle`; None if it did not run."""
    table = folder / "profile.txt"
    return (json.loads((folder / "gpu_idle.json").read_text()), table.read_text()) if table.is_file() else None


def _report(
    options: argparse.Namespace,
    outcomes: list[Outcome],
    timings: dict[str, Any] | None,
    profile: tuple[Any, str] | None,
) -> None:
    host = _describe_host()
    path = report_path(options.device, host["gpu"])
    if path is not None:
        stages = [] if options.stages == list(STAGES) else ["--stages", *options.stages]
        results = {
            "command": " ".join(["scripts/gpu_check", "--device", options.device, *stages]),
            "host": host,
            "stages": [asdict(outcome) for outcome in outcomes],
            "timings": timings,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        if profile is not None:
            results["gpu_idle"], table = profile
            path.with_name(f"{path.stem}-profile.txt").write_text(table)
        path.write_text(json.dumps(results, indent=2) + "\n")
        if path.parent == RESULTS:
            rewrite_readme()
    print(f"\n{host['gpu'] or 'no CUDA device'}, torch {host['torch']}, python {host['python']}")
    for outcome in outcomes:
        print(f"{outcome.stage:<9} {outcome.result:<8} {outcome.seconds:>6.1f} s   {outcome.detail}")
    if timings is not None:
        print(f"\n{comparison_table(timings)}")
    if path is not None:
        print(f"\n{path}")


def _describe_host() -> dict[str, Any]:
    """The kind of machine and its software, without anything that identifies a single machine."""
    host = {"gpu": None, "torch": None, "cuda": None, "python": platform.python_version()}
    if find_spec("torch"):
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        host |= {"gpu": name, "torch": torch.__version__, "cuda": torch.version.cuda}
    return host | {"date": datetime.now().astimezone().isoformat(timespec="seconds")}


if __name__ == "__main__":
    sys.exit(main())
