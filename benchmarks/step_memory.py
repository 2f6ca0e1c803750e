"""Peak resident memory of a process that trains the residual network at its defaults for one step on large images."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pool import Log

SIDE, QUICK_SIDE, BATCH_SIZE, COUNT = 256, 64, 4, 16

PEAK = """
import sys
from benchmarks.memory import peak_resident
from vae_train.cli.main import run
code = run(sys.argv[1:])
print(peak_resident())
sys.exit(code)
"""


def measure(device: str, threads: int, quick: bool, log: Log) -> dict[str, Any]:
    """Peak memory of `vae train model=resnet steps=1`, with and without checkpointing, each in a new process.

    Args:
        device: "cpu" or "cuda".
        threads: PyTorch's threads.
        quick: uses smaller images.
        log: reports progress.
    """
    side = QUICK_SIDE if quick else SIDE
    memory = {}
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary) / "images.npy"
        np.save(images, np.random.default_rng(0).integers(0, 256, (COUNT, side, side, 3), np.uint8))
        for checkpointing in ("true", "false"):
            words = [f"data.path={images}", f"device={device}", f"threads={threads}", f"batch_size={BATCH_SIZE}"]
            words += [f"model.encoder.checkpointing={checkpointing}", f"out={temporary}/{checkpointing}"]
            memory[checkpointing] = peak(["train", "data=arrays", "model=resnet", "steps=1", "logger=none", *words])
            log(f"checkpointing={checkpointing}: {memory[checkpointing]:,.0f} MiB")
    return {"side": side, "batch_size": BATCH_SIZE, "peak_mib": {key: round(value) for key, value in memory.items()}}


def peak(words: list[str]) -> float:
    """Peak resident memory of a new process that runs a command of `vae`, in MiB."""
    answer = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, capture_output=True, text=True)
    return float(answer.stdout.split()[-1])
