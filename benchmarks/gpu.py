"""Checks the package on a CUDA machine in under eight minutes: tests, a training, a resumed training, timings.

Run by scripts/gpu_check. What a machine lacks is skipped, and the table at the end says so. Every stage is a process of
its own with a time limit, so that one that crashes or hangs leaves the others alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.report import comparison, rewrite_readme

HERE = Path(__file__).parent
TOTAL_SECONDS = 465
NEEDED = ("torch", "torchvision", "hydra", "omegaconf", "tqdm", "sklearn", "matplotlib")
PROFILE = "profile"
"""Folder of what `benchmarks.gaps` writes."""
NO_TESTS = 5
"""pytest's exit code where it found none."""
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

TOLERANCE = 2e-3
"""Relative difference of an epoch's mean loss or ELBO that a resumed training may have: CUDA kernels that add in an
order of their own change the last bits, and training amplifies them."""


class Skipped(Exception):
    """This machine lacks what a stage needs."""


class Failed(Exception):
    """A stage did not do what it should."""


@dataclass
class Setting:
    """What all stages share."""

    device: str
    data: str
    """Name of the data set that is trained on."""
    folder: Path
    """Where the stages write; removed at the end."""
    environment: dict[str, str]
    """Variables of the stages' processes."""
    tiny: bool
    """Whether this only tries the logic out, on a CPU."""
    deadline: float
    """When everything must have ended, on the clock of `time.monotonic`."""


@dataclass
class Outcome:
    """How a stage ended."""

    stage: str
    result: str
    """passed, failed or skipped."""
    seconds: float
    detail: str


def gpu_tests(setting: Setting) -> str:
    """The tests marked `gpu`."""
    from vae_train.util.runtime import cores

    _need("pytest")
    # pytest-benchmark warns where pytest-xdist is at work, and warnings are errors here.
    options = ["-m", "gpu", "tests/gpu", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    shared = ["-n", str(min(8, cores()))] if find_spec("xdist") else []
    code, output = _call([sys.executable, "-m", "pytest", *options, *shared], setting, 150)
    last = output.strip().splitlines()[-1].strip("= ") if output.strip() else "no output"
    if code not in (0, NO_TESTS):
        raise Failed(last)
    if "passed" not in last:
        raise Skipped(last)
    return last


def training(setting: Setting) -> str:
    """A short training as a user types it: it ends well, and the loss falls."""
    epochs = 2 if setting.tiny else 5
    out = setting.folder / "training"
    _train(setting, 90, f"out={out}", f"epochs={epochs}")
    losses = [row["loss"] for row in _epochs(out)]
    summary = json.loads((out / "summary.json").read_text())
    if len(losses) != epochs or not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
        raise Failed(f"training losses of {epochs} epochs: {losses}")
    fall = f"loss {losses[0]:.2f} -> {losses[-1]:.2f}, validation ELBO {summary['best_elbo']:.2f}"
    lacking = "" if (out / "tensorboard").is_dir() else "; TensorBoard skipped: it is not installed"
    return f"{setting.data}, {epochs} epochs in {summary['seconds']:.1f} s: {fall}{lacking}"


def resume(setting: Setting) -> str:
    """Two epochs and two more are four epochs."""
    whole, parts = setting.folder / "whole", setting.folder / "parts"
    _train(setting, 60, f"out={whole}", "epochs=4")
    _train(setting, 60, f"out={parts}", "epochs=2")
    _train(setting, 60, f"resume={parts}", "epochs=4", fresh=False)
    a, b = _epochs(whole), _epochs(parts)
    if [row["step"] for row in a] != [row["step"] for row in b] or len(a) != 4:
        raise Failed(f"epochs end at steps {[r['step'] for r in a]} in one go and {[r['step'] for r in b]} resumed")
    worst = max(abs(x[k] - y[k]) / abs(x[k]) for x, y in zip(a, b, strict=True) for k in ("loss", "elbo"))
    text = f"{setting.data}, 2 + 2 epochs against 4: largest relative difference {worst:.1e} (at most {TOLERANCE:g})"
    if not worst <= TOLERANCE:
        raise Failed(text)
    return text


def timings(setting: Setting) -> str:
    """Steps per second of ours, of the plain loop and of the floor; see benchmarks/compare.py."""
    path = setting.folder / "timings.json"
    code, output = _call(
        [sys.executable, "-m", "benchmarks.gpu", "--device", setting.device, "--only-timings", str(path)], setting, 150
    )
    if code:
        raise Failed(_last_line(output))
    found = json.loads(path.read_text())
    losses = ", ".join(f"{name} {loss:.2f}" for name, loss in found["agreement"]["losses"].items())
    return f"{found['data']}; losses after {found['agreement']['steps']} steps: {losses}"


def gaps(setting: Setting) -> str:
    """How much of a captured step the GPU idles; see benchmarks/gaps.py."""
    if setting.device != "cuda":
        raise Skipped("kernels are only timed on CUDA")
    folder = setting.folder / PROFILE
    code, output = _call([sys.executable, "-m", "benchmarks.gaps", str(folder)], setting, 120)
    if code:
        raise Failed(_last_line(output))
    found = {row["execution"]: row for row in json.loads((folder / "gaps.json").read_text())}
    return "; ".join(
        f"{name}: {row['wall_us_per_step']:.0f} us per step, of which gaps {row['gap_share']:.0%}, "
        f"{row['seconds_per_epoch']:.3f} s per epoch"
        for name, row in found.items()
    )


STAGES: dict[str, Callable[[Setting], str]] = {
    "tests": gpu_tests,
    "training": training,
    "resume": resume,
    "timings": timings,
    "gaps": gaps,
}


def measure_here(device: str, path: Path) -> None:
    """What the stage `timings` runs in a process of its own; writes the figures to `path`."""
    from benchmarks.bench import MNIST_SIZE, WORKS
    from benchmarks.compare import Pace, measure
    from benchmarks.team import Member
    from benchmarks.work import Setting as Shared
    from vae_train.util.runtime import cores

    cuda = device == "cuda"
    shared = Shared(WORKS["mlp-128"], MNIST_SIZE if cuda else 1024, device, cores() if cuda else 1)
    pace = Pace(300, 100, 0.03, 0.7, 5) if cuda else Pace(40, 20, 0.1, 0.1, 1)
    executions = ("eager", "graph", "compile") if cuda else ("eager",)
    found = [Member(f"plain, workers={n}", "plain", shared, {"workers": n}) for n in ((1, 4) if cuda else (1,))]
    found += [Member("ours", "ours", shared)]
    found += [Member(f"ours, {name}", "ours", shared, {"execution": name}) for name in executions]
    path.write_text(json.dumps(measure([*found, Member("floor", "floor", shared)], pace, print)))


def run_stages(setting: Setting, names: Collection[str] = STAGES) -> list[Outcome]:
    """Runs those of the stages `names` that can run here."""
    outcomes = []
    for name in names:
        print(f"--- {name}", flush=True)
        start = time.monotonic()
        try:
            _need(*NEEDED)
            _need_device(setting.device)
            result, detail = "passed", STAGES[name](setting)
        except Skipped as why:
            result, detail = "skipped", str(why)
        except Failed as why:
            result, detail = "failed", str(why)
        except Exception as error:
            result, detail = "failed", f"{type(error).__name__}: {error}"
        outcomes.append(Outcome(name, result, round(time.monotonic() - start, 1), _without_paths(detail, setting)))
    return outcomes


def unpacked_mnist(place: str, folder: Path) -> str | None:
    """A folder that torchvision finds MNIST in: `place`, or one within `folder` where files of `place` are packed.

    None where there is no MNIST.
    """
    raw = Path(place) / "MNIST" / "raw"
    if all((raw / name).is_file() for name in MNIST_FILES):
        return str(Path(place).absolute())
    if not all((raw / name).is_file() or (raw / f"{name}.gz").is_file() for name in MNIST_FILES):
        return None
    target = folder / "data" / "MNIST" / "raw"
    target.mkdir(parents=True)
    for name in MNIST_FILES:
        plain = raw / name
        with plain.open("rb") if plain.is_file() else gzip.open(raw / f"{name}.gz") as source:
            (target / name).write_bytes(source.read())
    return str(folder / "data")


def prepare(device: str, folder: Path) -> Setting:
    """Looks at what this machine has; says what it lacks."""
    tiny = device == "cpu"
    root = unpacked_mnist(os.environ.get("VAE_DATA", "data"), folder)
    if root is None:
        print("MNIST is not here (VAE_DATA/MNIST/raw): training on digits, timing on random images")
    environment = dict(os.environ, VAE_DATA=root or str(folder / "nothing"), PYTHONUNBUFFERED="1")
    data = "mnist" if root and not tiny else "digits"
    return Setting(device, data, folder, environment, tiny, time.monotonic() + TOTAL_SECONDS)


def report_path(device: str, device_name: str | None) -> Path | None:
    """Where the report goes; None where there is no GPU to report on and no folder was named."""
    if os.environ.get("OUT"):
        return Path(os.environ["OUT"]) / "gpu_check.json"
    if device == "cpu" or device_name is None:
        return None
    return HERE / f"gpu-{re.sub('[^a-z0-9]+', '-', device_name.lower()).strip('-')}.json"


def main() -> int:
    """The command line of scripts/gpu_check; 1 where a stage failed."""
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: try the logic, tiny settings")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="these alone")
    parser.add_argument("--only-timings", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_timings:
        measure_here(options.device, options.only_timings)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="gpu_check-"))
    try:
        setting = prepare(options.device, folder)
        outcomes = run_stages(setting, options.stages)
        timed = folder / "timings.json"
        measured = json.loads(timed.read_text()) if timed.is_file() else None
        kernels = _kernels(folder / PROFILE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _report(options, outcomes, measured, kernels)
    return int(any(outcome.result == "failed" for outcome in outcomes))


def _kernels(folder: Path) -> tuple[Any, str] | None:
    """The figures and the table of `benchmarks.gaps`, where it ran."""
    table = folder / "profile.txt"
    return (json.loads((folder / "gaps.json").read_text()), table.read_text()) if table.is_file() else None


def _report(
    options: argparse.Namespace,
    outcomes: list[Outcome],
    measured: dict[str, Any] | None,
    kernels: tuple[Any, str] | None,
) -> None:
    facts = _facts()
    path = report_path(options.device, facts["gpu"])
    if path is not None:
        some = [] if options.stages == list(STAGES) else ["--stages", *options.stages]
        command = " ".join(["scripts/gpu_check", "--device", options.device, *some])
        stages = [asdict(outcome) for outcome in outcomes]
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {"command": command, "host": facts, "stages": stages, "timings": measured}
        if kernels is not None:
            found["launch_gaps"], table = kernels
            path.with_name(f"{path.stem}-profile.txt").write_text(table)
        path.write_text(json.dumps(found, indent=2) + "\n")
        if path.parent == HERE:
            rewrite_readme()
    print(f"\n{facts['gpu'] or 'no CUDA device'}, torch {facts['torch']}, python {facts['python']}")
    for outcome in outcomes:
        print(f"{outcome.stage:<9} {outcome.result:<8} {outcome.seconds:>6.1f} s   {outcome.detail}")
    if measured is not None:
        print(f"\n{comparison(measured)}")
    if path is not None:
        print(f"\n{path}")


def _facts() -> dict[str, Any]:
    """The kind of machine and its software; nothing that names this one."""
    facts = {"gpu": None, "torch": None, "cuda": None, "python": platform.python_version()}
    if find_spec("torch"):
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        facts |= {"gpu": name, "torch": torch.__version__, "cuda": torch.version.cuda}
    return facts | {"date": datetime.now().astimezone().isoformat(timespec="seconds")}


def _need(*modules: str) -> None:
    """Raises `Skipped` where Python modules are not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")


def _need_device(device: str) -> None:
    """Raises `Skipped` where CUDA is asked for and is not here."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise Skipped("no CUDA device here")


def _train(setting: Setting, seconds: float, *words: str, fresh: bool = True) -> None:
    """Runs `vae train`; a fresh run gets the data, the device and a logger that works here."""
    if fresh:
        logger = "tensorboard" if find_spec("tensorboard") else "none"
        words = (f"data={setting.data}", f"device={setting.device}", f"logger={logger}", *words)
    code, output = _call([sys.executable, "-m", "vae_train", "train", *words], setting, seconds)
    if code:
        raise Failed(f"vae train ended with {code}: {_last_line(output)}")


def _epochs(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's training epochs."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == "train" and row["scope"] == "epoch"]


def _call(words: list[str], setting: Setting, seconds: float) -> tuple[int, str]:
    """Runs a command and shows its output; returns its exit code and output.

    Raises:
        Failed: it took longer than `seconds`, or than is left; it is then ended with all its children.
    """
    limit = min(seconds, setting.deadline - time.monotonic())
    if limit <= 0:
        raise Failed("no time was left")
    # A file, since a grandchild that lives on would keep a pipe open.
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            words, cwd=HERE.parent, env=setting.environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        output = log.read()
    if output.strip():
        print(output[-4000:].rstrip(), flush=True)
    if code is None:
        raise Failed(f"took longer than {limit:.0f} s")
    return code, output


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["no output"])[-1]


def _without_paths(text: str, setting: Setting) -> str:
    """A line for the report, without this machine's folders."""
    for folder in (setting.folder, HERE.parent):
        text = text.replace(f"{folder}/", "")
    return text


if __name__ == "__main__":
    sys.exit(main())
