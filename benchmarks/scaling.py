"""How the cost of a step grows with the batch, the width and the image: vae_train against the roofline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.measurement import Measurement, speedup
from benchmarks.pool import ChildProcess, Log, Pool, Worker
from benchmarks.workload import MNIST_SHAPE, Settings, Workload

MLP, CONV = Workload("mlp", MNIST_SHAPE, 128), Workload("conv", (3, 32, 32), 128)
SERIES: dict[str, list[tuple[int, Workload]]] = {
    "batch size": [(n, replace(MLP, batch_size=n)) for n in (32, 128, 512, 1024, 4096)],
    "width": [(n, replace(MLP, width=n)) for n in (100, 200, 400, 800, 1600)],
    "image size": [(n, replace(CONV, shape=(3, n, n))) for n in (16, 32, 64, 128)],
}
"""Axis -> values, each with its workload."""

TITLES = {
    "batch size": "mlp 784-400-20",
    "width": "mlp 784-width-20, batch 128",
    "image size": "conv, colour images, batch 128",
}
MIN_IMAGES, WARMUP_STEPS, QUICK_VALUES = 512, 4, 2


def measure(
    device: str, threads: int, turn_seconds: float, repeats: int, log: Log, quick: bool = False
) -> dict[str, Any]:
    """Milliseconds of a step along every axis, measured in turns.

    Args:
        device: "cpu" or "cuda".
        threads: PyTorch's threads.
        turn_seconds: approximate length of a turn.
        repeats: turns of each implementation.
        log: reports progress.
        quick: measures only the two smallest values of every axis.
    """
    results: dict[str, Any] = {}
    with ChildProcess() as first, ChildProcess() as second:
        for axis, series in SERIES.items():
            rows = []
            for value, workload in series[: QUICK_VALUES if quick else None]:
                settings = Settings(workload, max(MIN_IMAGES, workload.batch_size), device, threads)
                own = Worker("vae_train", "vae_train_loop", settings, {}, first)
                roofline = Worker("roofline", "roofline", settings, {}, second)
                with Pool([own, roofline], log) as pool:
                    pool.warm_up(WARMUP_STEPS, WARMUP_STEPS // 2)
                    seconds = pool.time_steps(turn_seconds, repeats)
                milliseconds = {k: Measurement.of([1e3 * s for s in v]).as_json() for k, v in seconds.items()}
                rows.append({
                    "value": value,
                    "gflop_per_step": roofline.facts["gflop"],
                    "milliseconds": milliseconds,
                    "times_roofline": speedup(seconds["roofline"], seconds["vae_train"]).as_json(),
                })  # fmt: skip
                log(f"{axis} {value}: " + ", ".join(f"{k} {v['median']:.2f} ms" for k, v in milliseconds.items()))
            results[axis] = {"title": TITLES[axis], "rows": rows}
    return results
