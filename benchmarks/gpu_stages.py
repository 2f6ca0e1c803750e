"""The stages of scripts/gpu_check: each runs in a separate process with a time limit."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REQUIRED = ("torch", "torchvision", "hydra", "omegaconf", "tqdm", "sklearn", "matplotlib")
PROFILE = "profile"
"""Folder that `benchmarks.gpu_idle` writes into."""
TIMINGS = "timings.json"
NO_TESTS_COLLECTED = 5
"""pytest's exit code."""

TOLERANCE = 2e-3
"""Largest relative difference of an epoch's mean loss or ELBO between a resumed and an uninterrupted training. CUDA
kernels with atomic additions change the last bits, and training amplifies them."""


class Skipped(Exception):
    """This machine lacks what a stage needs."""


class Failed(Exception):
    """A stage failed; the message says how."""


@dataclass
class Context:
    """What all stages share."""

    device: str
    data: str
    """Name of the data set."""
    folder: Path
    """Temporary folder of the stages."""
    environment: dict[str, str]
    """Environment variables of the stages' processes."""
    tiny: bool
    """Whether this is a short run on a CPU that only tries the logic."""
    deadline: float
    """End of the time for all stages, on the clock of `time.monotonic`."""


@dataclass
class Outcome:
    """How a stage ended."""

    stage: str
    result: str
    """passed, failed or skipped."""
    seconds: float
    detail: str


def gpu_tests(context: Context) -> str:
    """Runs the tests marked `gpu`."""
    from vae_train.util.runtime import cores

    _require("pytest")
    # pytest-benchmark warns if pytest-xdist is active, and warnings are errors here.
    options = ["-m", "gpu", "tests/gpu", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    parallel = ["-n", str(min(8, cores()))] if find_spec("xdist") else []
    code, output = _run([sys.executable, "-m", "pytest", *options, *parallel], context, 150)
    last = output.strip().splitlines()[-1].strip("= ") if output.strip() else "no output"
    if code not in (0, NO_TESTS_COLLECTED):
        raise Failed(last)
    if "passed" not in last:
        raise Skipped(last)
    return last


def training(context: Context) -> str:
    """Trains for a few epochs as a user does; the loss must fall."""
    epochs = 2 if context.tiny else 5
    out = context.folder / "training"
    _train(context, 90, f"out={out}", f"epochs={epochs}")
    losses = [row["loss"] for row in _epoch_rows(out)]
    summary = json.loads((out / "summary.json").read_text())
    if len(losses) != epochs or not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
        raise Failed(f"training losses of {epochs} epochs: {losses}")
    losses_text = f"loss {losses[0]:.2f} -> {losses[-1]:.2f}, validation ELBO {summary['best_elbo']:.2f}"
    board = "" if (out / "tb").is_dir() else "; TensorBoard skipped: not installed"
    return f"{context.data}, {epochs} epochs in {summary['seconds']:.1f} s: {losses_text}{board}"


def resume(context: Context) -> str:
    """Compares two epochs and two resumed ones with four uninterrupted epochs."""
    whole, resumed = context.folder / "whole", context.folder / "resumed"
    _train(context, 60, f"out={whole}", "epochs=4")
    _train(context, 60, f"out={resumed}", "epochs=2")
    _train(context, 60, f"resume={resumed}", "epochs=4", new=False)
    a, b = _epoch_rows(whole), _epoch_rows(resumed)
    if [row["step"] for row in a] != [row["step"] for row in b] or len(a) != 4:
        raise Failed(f"epochs end at steps {[r['step'] for r in a]}, or {[r['step'] for r in b]} if resumed")
    worst = max(abs(x[k] - y[k]) / abs(x[k]) for x, y in zip(a, b, strict=True) for k in ("loss", "elbo"))
    text = f"{context.data}, 2 + 2 epochs against 4: largest relative difference {worst:.1e} (at most {TOLERANCE:g})"
    if not worst <= TOLERANCE:
        raise Failed(text)
    return text


def timings(context: Context) -> str:
    """Times the steps of vae_train, the PyTorch loop and the roofline; see benchmarks/compare.py."""
    path = context.folder / TIMINGS
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", context.device, "--only-timings", str(path)]
    code, output = _run(command, context, 150)
    if code:
        raise Failed(_last_line(output))
    results = json.loads(path.read_text())
    losses = ", ".join(f"{name} {loss:.2f}" for name, loss in results["agreement"]["losses"].items())
    return f"{results['data']}; losses after {results['agreement']['steps']} steps: {losses}"


def gpu_idle(context: Context) -> str:
    """Measures for how much of a step the GPU idles; see benchmarks/gpu_idle.py."""
    if context.device != "cuda":
        raise Skipped("kernels are only timed on CUDA")
    folder = context.folder / PROFILE
    code, output = _run([sys.executable, "-m", "benchmarks.gpu_idle", str(folder)], context, 120)
    if code:
        raise Failed(_last_line(output))
    return "; ".join(
        f"{row['execution']}: {row['wall_us_per_step']:.0f} us per step, GPU idle {row['idle_share']:.0%}, "
        f"{row['seconds_per_epoch']:.3f} s per epoch"
        for row in json.loads((folder / "gpu_idle.json").read_text())
    )


STAGES: dict[str, Callable[[Context], str]] = {
    "tests": gpu_tests,
    "training": training,
    "resume": resume,
    "timings": timings,
    "gpu_idle": gpu_idle,
}


def run_stages(context: Context, names: Collection[str] = STAGES) -> list[Outcome]:
    """Runs stages; those that cannot run on this machine are skipped."""
    outcomes = []
    for name in names:
        print(f"--- {name}", flush=True)
        start = time.monotonic()
        try:
            _require(*REQUIRED)
            _require_device(context.device)
            result, detail = "passed", STAGES[name](context)
        except Skipped as error:
            result, detail = "skipped", str(error)
        except Failed as error:
            result, detail = "failed", str(error)
        except Exception as error:
            result, detail = "failed", f"{type(error).__name__}: {error}"
        outcomes.append(Outcome(name, result, round(time.monotonic() - start, 1), _without_paths(detail, context)))
    return outcomes


def _require(*modules: str) -> None:
    """Raises `Skipped` if Python modules are not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")


def _require_device(device: str) -> None:
    """Raises `Skipped` if CUDA is needed and missing."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise Skipped("no CUDA device")


def _train(context: Context, seconds: float, *overrides: str, new: bool = True) -> None:
    """Runs `vae train`; a new run gets the data, the device and a logger that is installed."""
    if new:
        logger = "tensorboard" if find_spec("tensorboard") else "none"
        overrides = (f"data={context.data}", f"device={context.device}", f"logger={logger}", *overrides)
    code, output = _run([sys.executable, "-m", "vae_train", "train", *overrides], context, seconds)
    if code:
        raise Failed(f"vae train failed with {code}: {_last_line(output)}")


def _epoch_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's training epochs."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == "train" and row["scope"] == "epoch"]


def _run(command: list[str], context: Context, seconds: float) -> tuple[int, str]:
    """Runs a command and prints its output; returns its exit code and output.

    Raises:
        Failed: it took longer than `seconds` or than the time left; it is ended with all its children.
    """
    limit = min(seconds, context.deadline - time.monotonic())
    if limit <= 0:
        raise Failed("no time left")
    # A file, since a grandchild that survives would keep a pipe open.
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            command, cwd=HERE.parent, env=context.environment, stdout=log, stderr=log, start_new_session=True
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


def _without_paths(text: str, context: Context) -> str:
    """A line for the report, without folders of this machine."""
    for folder in (context.folder, HERE.parent):
        text = text.replace(f"{folder}/", "")
    return text
