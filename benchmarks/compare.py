"""Implementations against each other on one workload: checks that they do the same work, then times them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measurement import Measurement, speedup
from benchmarks.pool import Log, Pool, Worker
from benchmarks.workload import Settings, load_images
from vae_train.util.runtime import emulated


class WorkloadMismatch(Exception):
    """Implementations do not do the same work, so comparing their times would mean nothing."""


@dataclass(frozen=True)
class Schedule:
    """How long implementations train before they are timed, and how long they are timed."""

    warmup_steps: int
    """After some 700 steps on MNIST, Adam's averages become denormal numbers, which slow down implementations that do
    not flush them. 800 steps reach this steady state."""
    loss_window: int
    """Last steps of the warm-up whose mean loss is compared."""
    tolerance: float
    """Largest relative difference of these losses."""
    turn_seconds: float
    repeats: int


def workers(settings: Settings) -> list[Worker]:
    """The implementations that compete on a device; "vae_train" has the default settings."""

    def vae_train(*execution: str) -> Worker:
        options = {"execution": execution[0]} if execution else {}
        return Worker(", ".join(["vae_train", *execution]), "vae_train_loop", settings, options)

    pythae, roofline = Worker("pythae", "pythae_baseline", settings), Worker("roofline", "roofline", settings)
    if settings.device == "cpu":
        loops = [Worker("pytorch_loop", "pytorch_loop", settings, {"workers": 0})]
        own = [vae_train(), vae_train("compile")]
    else:
        loops = [Worker(f"pytorch_loop, workers={n}", "pytorch_loop", settings, {"workers": n}) for n in (1, 4)]
        own = [vae_train(), vae_train("eager"), vae_train("compile")]
    return [*loops, pythae, *own, roofline]


def measure(workers: Sequence[Worker], schedule: Schedule, log: Log) -> dict[str, Any]:
    """Trains all implementations, checks that they agree, and times them in turns.

    Args:
        workers: the implementations; one is called "vae_train".
        schedule: how long.
        log: reports progress.

    Raises:
        WorkloadMismatch: they do not do the same work.
    """
    settings = workers[0].settings
    workload = settings.workload
    unavailable = {w.name: reason for w in workers if (reason := missing_support(settings.device, **w.options))}
    with Pool([w for w in workers if w.name not in unavailable], log) as pool:
        log(f"{workload.title}: {schedule.warmup_steps} warm-up steps of each implementation")
        pool.warm_up(schedule.warmup_steps, schedule.loss_window)
        agreement = check_agreement(pool.workers, schedule)
        log("losses agree: " + ", ".join(f"{name} {loss:.2f}" for name, loss in agreement["losses"].items()))
        seconds = pool.time_steps(schedule.turn_seconds, schedule.repeats)
        memory = pool.peak_memory()
        gflop = next((w.facts["gflop"] for w in pool.workers if "gflop" in w.facts), None)
        parameters = pool.workers[0].facts["parameters"]
        kinds = {w.name: w.kind for w in pool.workers}
    return {
        "title": workload.title,
        "data": f"{settings.num_images:,} images: {load_images(workload.shape, 1).description}",
        "batch_size": workload.batch_size,
        "parameters": parameters,
        "gflop_per_step": gflop,
        "agreement": agreement,
        "implementations": table_rows(seconds, kinds, workload.batch_size, memory),
        "left_out": unavailable | pool.unavailable,
    }


def table_rows(
    seconds: dict[str, list[float]], kinds: dict[str, str], batch_size: int, memory: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Rates, memory, and speedups over the baselines and over the default settings of vae_train.

    Args:
        seconds: per step, of every implementation in every repetition.
        kinds: see `Worker.kind`.
        batch_size: B.
        memory: peak memory of every implementation in MiB.
    """
    baselines = ("pytorch_loop", "pythae_baseline")
    references = [name for name in seconds if kinds[name] in baselines or name == "vae_train"]
    rows = {}
    for name, times in seconds.items():
        rate = Measurement.of([1 / t for t in times])
        rows[name] = {
            "steps_per_second": rate.as_json(),
            "images_per_second": rate.map(lambda r: r * batch_size).as_json(),
            "speedup_over": {r: speedup(times, seconds[r]).as_json() for r in references if r != name},
            "peak_mib": None if kinds[name] == "roofline" else memory[name],
        }
    return rows


def check_agreement(workers: Sequence[Worker], schedule: Schedule) -> dict[str, Any]:
    """Checks that models have the same size and that losses after the warm-up agree; returns the losses.

    Raises:
        WorkloadMismatch: they do not.
    """
    counts = {w.name: w.facts["parameters"] for w in workers}
    if len(set(counts.values())) > 1:
        raise WorkloadMismatch(f"the models have different numbers of parameters: {counts}")
    losses = {w.name: w.loss for w in workers if w.kind != "roofline"}
    steps, tolerance = schedule.warmup_steps, schedule.tolerance
    reference = next(iter(losses.values()), 0.0)
    agree = all(abs(loss - reference) <= tolerance * abs(reference) for loss in losses.values())
    if not agree or not math.isfinite(reference):
        raise WorkloadMismatch(f"after {steps} steps the losses {losses} differ by more than {tolerance:.0%}")
    return {"steps": steps, "window": schedule.loss_window, "tolerance": tolerance, "losses": losses}


def missing_support(
    device: str,
    execution: str = "auto",
    precision: Any = "float32",
    find_program: Callable[[str], str | None] = shutil.which,
    **_: object,
) -> str | None:
    """Why vae_train cannot run with these settings on this machine, or would take minutes; None if it can.

    Args:
        device: "cpu" or "cuda".
        execution: the setting of that name.
        precision: the setting of that name.
        find_program: finds a program by its name.
    """
    if execution == "compile" and device == "cpu" and not any(map(find_program, ("c++", "g++", "clang++", "cl"))):
        return "execution=compile needs a C++ compiler"
    return emulated(precision, torch.device(device))
