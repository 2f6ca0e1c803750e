"""Whole epochs with validation and output files, as users run them."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.measurement import Measurement, speedup
from benchmarks.pool import Log, Pool, Worker
from benchmarks.workload import Settings


def measure(settings: Settings, warmup_steps: int, repeats: int, log: Log) -> dict[str, Any]:
    """Seconds of an epoch of every implementation.

    Args:
        settings: what is trained, and on what.
        warmup_steps: steps of every implementation before the timing; one epoch follows that is not counted.
        repeats: epochs of every implementation.
        log: reports progress.
    """
    loader_workers = 0 if settings.device == "cpu" else 1
    workers = [
        Worker("pytorch_loop", "pytorch_loop", settings, {"workers": loader_workers}),
        Worker("pythae", "pythae_baseline", settings),
        Worker("vae_train", "vae_train_loop", settings),
    ]
    with Pool(workers, log) as pool:
        pool.warm_up(warmup_steps, min(warmup_steps, 50))
        for worker in pool.workers:
            worker.call("timed_epoch")
        seconds = pool.take_turns(repeats, lambda worker: worker.call("timed_epoch")["seconds"])
        memory = pool.peak_memory()
    for name, times in seconds.items():
        log(f"one epoch: {name} {statistics.median(times):.2f} s")
    rows = {
        name: {
            "seconds_per_epoch": Measurement.of(times).as_json(),
            "vae_train_speedup": speedup(seconds["vae_train"], times).as_json(),
            "peak_mib": memory[name],
        }
        for name, times in seconds.items()
    }
    title, images = settings.workload.title, settings.num_images
    return {"title": title, "images": images, "implementations": rows, "left_out": pool.unavailable}
