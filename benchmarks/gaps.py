"""How much of a step a GPU idles: the time of its kernels against the time on the clock. Needs CUDA.

Wall time is taken with CUDA events and without a profiler, which would widen the gaps; the time of the kernels, which
it does not change, is taken with it. `python -m benchmarks.gaps OUT` writes OUT/gaps.json and OUT/profile.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.contender import covered, device_spans
from benchmarks.ours import Ours
from benchmarks.work import MNIST_SHAPE, Setting, Work

WARM, TIMED, PROFILED = 200, 2_000, 200
MODES = ("graph", "compile", "eager")


def measure(mode: str, images: int = 60_000) -> tuple[dict[str, Any], str]:
    """Microseconds of a step of 784-400-20 at batch 128, and the table of its kernels.

    Args:
        mode: the setting `execution`.
        images: training images.
    """
    ours = Ours(Setting(Work("mlp", MNIST_SHAPE, 128), images, "cuda", torch.get_num_threads()), execution=mode)
    ours.steps(WARM)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    ours.steps(TIMED)
    end.record()
    torch.cuda.synchronize()
    wall = 1e3 * begin.elapsed_time(end) / TIMED
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        ours.steps(PROFILED)
        torch.cuda.synchronize()
    spans = device_spans(profile)
    busy = covered(spans) / PROFILED
    table = profile.key_averages().table(sort_by="self_device_time_total", row_limit=40, max_name_column_width=60)
    figures = {
        "execution": ours.learner.execution,
        "wall_us_per_step": wall,
        "kernels_us_per_step": busy,
        "kernels_per_step": len(spans) / PROFILED,
        "gap_share": 1 - busy / wall,
        "seconds_per_epoch": wall * 1e-6 * images / 128,
    }
    return figures, table


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gaps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for gaps.json and profile.txt")
    out = parser.parse_args().out
    if not torch.cuda.is_available():
        print("gaps: there is no CUDA device here", file=sys.stderr)
        return 2
    found, tables = [], []
    for mode in MODES:
        figures, table = measure(mode)
        found.append(figures)
        tables.append(f"execution={mode}\n{table}")
        print(json.dumps(figures))
    out.mkdir(parents=True, exist_ok=True)
    (out / "gaps.json").write_text(json.dumps(found, indent=2) + "\n")
    (out / "profile.txt").write_text("\n".join(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
