"""How long a GPU idles in a step: the time of its kernels against the elapsed time. Needs CUDA.

Elapsed time is measured with CUDA events and without a profiler, which would lengthen the gaps between kernels. The
time of the kernels, which a profiler does not change, is measured with it. `python -m benchmarks.gpu_idle OUT` writes
OUT/gpu_idle.json and OUT/profile.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.vae_train_loop import VaeTrainLoop
from benchmarks.workload import MNIST_SHAPE, Settings, Workload

WARMUP_STEPS, TIMED_STEPS, PROFILED_STEPS = 200, 2_000, 200
EXECUTIONS = ("graph", "compile", "eager")


def measure(execution: str, num_images: int = 60_000) -> tuple[dict[str, Any], str]:
    """Microseconds of a step of 784-400-20 at batch 128, and the table of its kernels.

    Args:
        execution: the setting of that name.
        num_images: training images.
    """
    workload = Workload("mlp", MNIST_SHAPE, 128)
    loop = VaeTrainLoop(Settings(workload, num_images, "cuda", torch.get_num_threads()), execution)
    loop.steps(WARMUP_STEPS)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    loop.steps(TIMED_STEPS)
    end.record()
    torch.cuda.synchronize()
    wall = 1e3 * start.elapsed_time(end) / TIMED_STEPS
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        loop.steps(PROFILED_STEPS)
        torch.cuda.synchronize()
    spans = device_intervals(profile)
    busy = union_length(spans) / PROFILED_STEPS
    table = profile.key_averages().table(sort_by="self_device_time_total", row_limit=40, max_name_column_width=60)
    row = {
        "execution": execution,
        "wall_us_per_step": wall,
        "kernels_us_per_step": busy,
        "kernels_per_step": len(spans) / PROFILED_STEPS,
        "idle_share": 1 - busy / wall,
        "seconds_per_epoch": wall * 1e-6 * num_images / workload.batch_size,
    }
    return row, table


def device_intervals(profile: torch.profiler.profile) -> list[tuple[float, float]]:
    """Start and end of everything that ran on the CUDA device, in microseconds."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or []
        if event.device_type == torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
    ]


def union_length(intervals: list[tuple[float, float]]) -> float:
    """The length of the union of intervals, so that concurrent kernels count once."""
    total, covered_until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > covered_until:
            total += end - max(start, covered_until)
            covered_until = end
    return total


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_idle", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for gpu_idle.json and profile.txt")
    out = parser.parse_args().out
    if not torch.cuda.is_available():
        print("gpu_idle: no CUDA device", file=sys.stderr)
        return 2
    rows, tables = [], []
    for execution in EXECUTIONS:
        row, table = measure(execution)
        rows.append(row)
        tables.append(f"execution={execution}\n{table}")
        print(json.dumps(row))
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu_idle.json").write_text(json.dumps(rows, indent=2) + "\n")
    (out / "profile.txt").write_text("\n".join(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
