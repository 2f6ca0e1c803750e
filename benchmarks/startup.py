"""How long one waits for the first answer: `vae --help`, completion, the import of torch, the first training step.

Run as a program it is the process that is timed until its first step; it prints its time stamps as JSON.
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

from benchmarks.results import Spread

LINE = "vae train mod"
WORDS = ("epochs=1", "logger=none")
PEAK = "import torch; from benchmarks.memory import most_resident; print(most_resident())"


def measure(device: str, repeats: int) -> dict[str, Any]:
    """Seconds of every answer, in turns, after one of each that does not count (files come into memory).

    Args:
        device: where the first step is taken.
        repeats: how often each is asked.
    """
    seconds: dict[str, list[float]] = {}

    def note(name: str, value: float, counts: bool) -> None:
        if counts:
            seconds.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + 1):
            counts = repeat > 0
            for name, ask in _asked(device, Path(folder) / str(repeat)).items():
                start = time.perf_counter()
                found = ask()
                note(name, time.perf_counter() - start, counts)
                for part, value in (found or {}).items():
                    note(part, value, counts)
    memory = float(_run(sys.executable, "-c", PEAK))
    return {"seconds": {k: Spread.of(v).as_json() for k, v in seconds.items()}, "torch_resident_mib": round(memory)}


def _asked(device: str, out: Path) -> dict[str, Callable[[], dict[str, float] | None]]:
    """What is timed: a name for each, and what runs it; some tell the parts of their time."""
    vae = [sys.executable, "-m", "vae_train"]
    completion = {"COMP_LINE": LINE, "COMP_POINT": str(len(LINE))}

    def run(*words: str, **variables: str) -> None:
        _run(*words, **variables)

    return {
        "vae --help": lambda: run(*vae, "--help"),
        "completion of `vae train mod`": lambda: run(*vae, "-sc", "query=bash", **completion),
        "python -c 'import torch'": lambda: run(sys.executable, "-c", "import torch"),
        "a process until its first step": lambda: json.loads(
            _run(sys.executable, "-m", "benchmarks.startup", device).splitlines()[-1]
        ),
        "vae train epochs=1 (digits), whole": lambda: run(*vae, "train", *WORDS, f"device={device}", f"out={out}"),
    }


def _run(*words: str, **variables: str) -> str:
    from benchmarks.team import environment

    done = subprocess.run(words, env={**environment(), **variables}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    """The parts of `vae train` until the first step is done."""
    stamps = [time.perf_counter()]

    import torch

    stamps.append(time.perf_counter())

    from vae_train.cli.commands.train import Settings, check
    from vae_train.cli.overrides import checked
    from vae_train.data.stream import Stream
    from vae_train.runs.build import assemble, resolve_device

    stamps.append(time.perf_counter())
    words = [*WORDS, f"device={sys.argv[1]}"]
    cfg = checked("train", words, Settings, check).whole
    assert cfg is not None
    stamps.append(time.perf_counter())
    data, learner, trainer = assemble(cfg, resolve_device(cfg.device))
    stamps.append(time.perf_counter())
    train = data.split("train")
    assert train is not None
    stream = Stream(train, trainer.batch_size, seed=learner.seed, device=learner.device)
    rows = learner.advance(stream, 0, 1)
    assert bool(torch.isfinite(rows.cpu()).all())
    stamps.append(time.perf_counter())
    imported, libraries, composed, assembled, stepped = (b - a for a, b in pairwise(stamps))
    parts = {
        "… of it: import torch": imported,
        "… import the rest": libraries,
        "… compose and check": composed,
        "… assemble": assembled,
        "… the first step": stepped,
        "from torch imported to the first step done": sum((libraries, composed, assembled, stepped)),
    }
    print(json.dumps(parts))


if __name__ == "__main__":
    main()
