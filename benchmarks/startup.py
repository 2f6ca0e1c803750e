"""How long users wait for the first answer: `vae --help`, completion, the import of torch, the first training step.

As a program, this module measures the time until the first step in its own process and prints the parts as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measurement import Measurement

COMPLETED_LINE = "vae train mod"
OVERRIDES = ("epochs=1", "logger=none")
PEAK = "import torch; from benchmarks.memory import peak_resident; print(peak_resident())"


def measure(device: str, repeats: int) -> dict[str, Any]:
    """Seconds of every command, in turns, after one uncounted round that loads files into memory.

    Args:
        device: where the first step is taken.
        repeats: how often each command runs.
    """
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + 1):
            for name, command in _commands(device, Path(folder) / str(repeat)).items():
                start = time.perf_counter()
                parts = command()
                total = {name: time.perf_counter() - start}
                for part, value in (total | (parts or {})).items() if repeat else ():
                    seconds.setdefault(part, []).append(value)
    memory = float(_run(sys.executable, "-c", PEAK))
    return {
        "seconds": {k: Measurement.of(v).as_json() for k, v in seconds.items()},
        "torch_resident_mib": round(memory),
    }


def _commands(device: str, out: Path) -> dict[str, Callable[[], dict[str, float] | None]]:
    """Name -> function that runs the command; some return the parts of their time."""
    vae = [sys.executable, "-m", "vae_train"]
    completion = {"COMP_LINE": COMPLETED_LINE, "COMP_POINT": str(len(COMPLETED_LINE))}

    def run(*command: str, **variables: str) -> None:
        _run(*command, **variables)

    return {
        "vae --help": lambda: run(*vae, "--help"),
        "completion of `vae train mod`": lambda: run(*vae, "-sc", "query=bash", **completion),
        "python -c 'import torch'": lambda: run(sys.executable, "-c", "import torch"),
        "a process until its first step": lambda: json.loads(
            _run(sys.executable, "-m", "benchmarks.startup", device).splitlines()[-1]
        ),
        "vae train epochs=1 (digits), whole": lambda: run(*vae, "train", *OVERRIDES, f"device={device}", f"out={out}"),
    }


def _run(*command: str, **variables: str) -> str:
    from benchmarks.pool import environment

    process = subprocess.run(command, env={**environment(), **variables}, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}: {process.stderr[-2000:]}")
    return process.stdout


def main() -> None:
    """Measures the parts of a training until its first step is done."""
    stamps = [time.perf_counter()]

    import torch  # noqa: F401

    stamps.append(time.perf_counter())

    from benchmarks.training import Training, checked_config

    stamps.append(time.perf_counter())
    config = checked_config([*OVERRIDES, f"device={sys.argv[1]}"])
    stamps.append(time.perf_counter())
    training = Training(config)
    stamps.append(time.perf_counter())
    loss = training.steps(1)
    assert loss == loss
    stamps.append(time.perf_counter())
    imported, libraries, composed, built, stepped = (b - a for a, b in pairwise(stamps))
    parts = {
        "… import torch": imported,
        "… import the rest": libraries,
        "… compose and check": composed,
        "… build": built,
        "… the first step": stepped,
        "from torch imported to the first step done": libraries + composed + built + stepped,
    }
    print(json.dumps(parts))


if __name__ == "__main__":
    main()
