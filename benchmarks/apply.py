"""`vae apply task=encode`: images per second beside the encoder's forward pass alone, and peak memory by file size."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vae_train
from benchmarks.loading import generate
from benchmarks.measurement import Measurement, speedup
from benchmarks.pool import Log
from vae_train.data.session import DataSession
from vae_train.runs.apply.apply import apply_task, open_inputs
from vae_train.runs.apply.inputs import Request
from vae_train.runs.apply.tasks.encode import Encode
from vae_train.runs.build import Builder
from vae_train.runs.run import Run

SHAPE, BATCH_SIZE = (32, 32, 3), 256
COUNT, QUICK_COUNT = 20_000, 2_000
JPEGS, QUICK_JPEGS = 5_000, 500
MEMORY_COUNTS, QUICK_MEMORY_COUNTS = (10_000, 100_000), (1_000, 2_000)

ARRAY, FOLDER, FORWARD = "uint8 array", "folder of JPEGs, not decoded before", "the encoder's forward pass alone"

PEAK = """
import sys
from benchmarks.memory import peak_of_own
from vae_train.cli.main import run
print(peak_of_own(lambda: run(sys.argv[1:])))
"""


def measure(device: str, threads: int, repeats: int, quick: bool, log: Log) -> dict[str, Any]:
    """Images per second of each kind of input, in turns, and the peak memory of the command.

    Args:
        device: "cpu" or "cuda".
        threads: PyTorch's threads.
        repeats: turns of each.
        quick: uses fewer images.
        log: reports progress.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        inputs = {ARRAY: write_array(place / "images.npy", QUICK_COUNT if quick else COUNT)}
        inputs[FOLDER] = generate(place / "jpegs", QUICK_JPEGS if quick else JPEGS)
        run = _train(place)
        seconds: dict[str, list[float]] = {FORWARD: [], ARRAY: [], FOLDER: []}
        for repeat in range(repeats + 1):
            turn = {FORWARD: _forward(run, device)} | {
                name: _encode(run, path, device) for name, path in inputs.items()
            }
            for name, value in turn.items():
                seconds[name] += [value] if repeat else []
        rates = {name: Measurement.of([1 / value for value in values]) for name, values in seconds.items()}
        for name, rate in rates.items():
            log(f"{name}: {rate.median:,.0f} images/s")
        memory = {
            count: peak_memory(run, write_array(place / f"{count}.npy", count), place)
            for count in (QUICK_MEMORY_COUNTS if quick else MEMORY_COUNTS)
        }
    return {
        "shape": SHAPE,
        "images_per_second": {name: rate.as_json() for name, rate in rates.items()},
        "share_of_forward": {name: speedup(seconds[name], seconds[FORWARD]).as_json() for name in inputs},
        "peak_mib": {str(count): round(value) for count, value in memory.items()},
    }


def write_array(path: Path, count: int) -> Path:
    """Writes random uint8 images to a .npy file, in parts; returns `path`."""
    rng = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *SHAPE))
    for start in range(0, count, 1_000):
        part = array[start : start + 1_000]
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    array.flush()
    return path


def peak_memory(run: Run, array: Path, place: Path) -> float:
    """Peak memory beside mapped files, in MiB, of a process that encodes an array."""
    words = ["apply", f"run={run.folder}", "task=encode", "csv=false", f"input={array}", f"out={place / array.stem}"]
    answer = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, capture_output=True, text=True)
    return float(answer.stdout.split()[-1])


def _train(place: Path) -> Run:
    data = write_array(place / "training.npy", 500)
    words = ("data=arrays", f"data.path={data}", "model=conv", "logger=none", "steps=1", f"out={place / 'run'}")
    return vae_train.train(*words)


def _forward(run: Run, device: str) -> float:
    """Seconds per image of the encoder's forward pass over a batch."""
    model = vae_train.load(run.folder, device=device).model
    x = torch.rand(BATCH_SIZE, SHAPE[2], *SHAPE[:2], device=device)
    encoder, passes = model.encoder, 20
    with torch.no_grad():
        encoder(x)
        begin = time.perf_counter()
        for _ in range(passes):
            encoder(x)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / (passes * BATCH_SIZE)


def _encode(run: Run, path: Path, device: str) -> float:
    """Seconds per image from opening the input to the complete folder of results, without a cache of decoded images."""
    moved = Run(run.folder, run.config.with_values({"data.cache": str(path.parent / "cache")}))
    shutil.rmtree(path.parent / "cache", ignore_errors=True)
    task, model, builder = Encode(sample=False, csv=False), vae_train.load(run.folder, device=device), Builder()
    begin = time.perf_counter()
    inputs = open_inputs(Request(str(path), None, None, 0, DataSession()), task, moved, model, builder)
    apply_task(task, "encode", moved, model, inputs, out=str(path.parent / "latents"), overwrite=True,
               batch_size=BATCH_SIZE)  # fmt: skip
    return (time.perf_counter() - begin) / len(inputs)
