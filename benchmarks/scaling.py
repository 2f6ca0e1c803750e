"""How the cost of a step grows with the batch, the width and the image: ours against the floor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.results import Spread, times_as_fast
from benchmarks.team import Member, Process, Say, Team
from benchmarks.work import MNIST_SHAPE, Setting, Work

MLP, CONV = Work("mlp", MNIST_SHAPE, 128), Work("conv", (3, 32, 32), 128)
SERIES: dict[str, list[tuple[int, Work]]] = {
    "batch size": [(n, replace(MLP, batch_size=n)) for n in (32, 128, 512, 1024, 4096)],
    "width": [(n, replace(MLP, width=n)) for n in (100, 200, 400, 800, 1600)],
    "image size": [(n, replace(CONV, shape=(3, n, n))) for n in (16, 32, 64, 128)],
}
"""What grows, its values, and the work of each."""

ABOUT = {
    "batch size": "mlp 784-400-20",
    "width": "mlp 784-width-20, batch 128",
    "image size": "conv, colour images, batch 128",
}
LEAST_IMAGES, WARM = 512, 2


def measure(device: str, threads: int, turn: float, repeats: int, say: Say, quick: bool = False) -> dict[str, Any]:
    """Milliseconds of a step, in turns.

    Args:
        device: where.
        threads: PyTorch's threads.
        turn: about how many seconds a turn takes.
        repeats: turns of each.
        say: told how far it is.
        quick: takes the two smallest of every series alone.
    """
    found: dict[str, Any] = {}
    with Process() as first, Process() as second:
        for name, series in SERIES.items():
            rows = []
            for value, work in series[: 2 if quick else None]:
                setting = Setting(work, max(LEAST_IMAGES, work.batch_size), device, threads)
                members = [Member("ours", "ours", setting, {}, first), Member("floor", "floor", setting, {}, second)]
                with Team(members, say) as team:
                    team.warm_up(2 * WARM, WARM)
                    seconds = team.turns(turn, repeats)
                    gflop = members[1].facts["gflop"]
                row = {k: Spread.of([1e3 * s for s in v]).as_json() for k, v in seconds.items()}
                ratio = times_as_fast(seconds["floor"], seconds["ours"]).as_json()
                rows.append({"value": value, "gflop_per_step": gflop, "milliseconds": row, "of_the_floor": ratio})
                say(f"{name} {value}: ours {row['ours']['median']:.2f} ms, floor {row['floor']['median']:.2f} ms")
            found[name] = {"about": ABOUT[name], "rows": rows}
    return found
