"""`scripts/bench --tune`: which precision, execution, batch size, threads and layout pay on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.compare import unfit
from benchmarks.results import Spread
from benchmarks.team import Member, Process, Say, Team
from benchmarks.work import MNIST_SHAPE, Setting, Work

NETWORKS = {"mlp": "mlp 784-400-20", "conv": "conv 28x28x1"}
BATCH_SIZES, DEFAULT_BATCH_SIZE = (128, 512, 2048), 128
NUM_IMAGES, WARM = 4_096, 3
Key = tuple[int, str]


@dataclass(frozen=True)
class Choice:
    """One combination of settings."""

    precision: str
    execution: str
    batch_size: int
    threads: int
    layout: str
    """Of convolutions' weights: "default", or "contiguous" where the default is another. No setting of `vae train`."""

    @property
    def command(self) -> str:
        """As it is typed."""
        chosen = f"batch_size={self.batch_size} precision={self.precision} execution={self.execution}"
        return f"{chosen} threads={self.threads}"


def choices(network: str, device: str, all_threads: int, quick: bool) -> list[Choice]:
    """All combinations that are measured; compiled steps have the default layout only."""
    executions = ("graph", "compile") if device == "cpu" else ("eager", "compile", "graph")
    precisions = ("float32", "bfloat16") if device == "cpu" else ("float32", "tf32", "bfloat16")
    threads = sorted({1, all_threads}) if device == "cpu" else [all_threads]
    found = []
    for count in threads:
        for precision in precisions:
            for execution in executions:
                for batch_size in BATCH_SIZES[: 2 if quick else None]:
                    found.append(Choice(precision, execution, batch_size, count, "default"))
                    if network == "conv" and execution != "compile":
                        found.append(Choice(precision, execution, batch_size, count, "contiguous"))
    return found


def measure(
    found: list[Choice], network: str, device: str, repeats: int, turn: float, say: Say
) -> dict[Choice, Spread]:
    """Images per second of every combination, in turns; those of one process share its threads and its precision."""
    shared: dict[Key, Process] = {}
    with ExitStack() as stack:
        members = {}
        for choice in found:
            key = (choice.threads, choice.precision)
            if key not in shared:
                shared[key] = stack.enter_context(Process())
            work = Work(network, MNIST_SHAPE, choice.batch_size)  # type: ignore[arg-type]
            knobs: dict[str, Any] = {"precision": choice.precision, "execution": choice.execution}
            setting = Setting(work, NUM_IMAGES, device, choice.threads)
            name = f"{choice.command} {choice.layout}"
            members[name] = choice, Member(name, "ours", setting, {**knobs, "layout": choice.layout}, shared[key])
        with Team([member for _, member in members.values()], say) as team:
            say(f"{network}: {len(team.members)} combinations, in {len(shared)} processes")
            team.warm_up(WARM + 1, 1)
            seconds = team.turns(turn, repeats, least=1)
    sizes = {name: choice.batch_size for name, (choice, _) in members.items()}
    return {members[name][0]: Spread.of([sizes[name] / t for t in times]) for name, times in seconds.items()}


def table(found: dict[Choice, Spread]) -> str:
    """Images per second, a row per combination but for the batch size, which has columns."""
    sizes = sorted({choice.batch_size for choice in found})
    rows: dict[tuple[str, ...], dict[int, Spread]] = {}
    for choice, spread in found.items():
        rows.setdefault((choice.precision, choice.execution, str(choice.threads), choice.layout), {})[
            choice.batch_size
        ] = spread
    lines = [
        "| precision | execution | threads | layout | " + " | ".join(f"batch {n}" for n in sizes) + " |",
        "|---|---|---|---|" + "---|" * len(sizes),
    ]
    for key, cells in rows.items():
        figures = [f"{s.median:,.0f} ({s.min:,.0f} – {s.max:,.0f})" if (s := cells.get(n)) else "–" for n in sizes]
        lines.append(f"| {' | '.join(key)} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main(device: str, threads: int, repeats: int | None, quick: bool, say: Say) -> int:
    """Prints the tables, and the fastest settings as command lines."""
    fastest: list[str] = []
    for network, title in NETWORKS.items():
        absent = {c: unfit(device, c.execution, c.precision) for c in choices(network, device, threads, quick)}
        for why in sorted({why for why in absent.values() if why}):
            print(f"left out: {why}")
        found = [choice for choice, why in absent.items() if why is None]
        rates = measure(found, network, device, repeats or (2 if quick else 3), 0.3 if quick else 0.6, say)
        print(f"\n{title}, images per second: median (min – max)\n\n{table(rates)}\n", flush=True)
        fastest += _fastest(network, rates)
    print("fastest (a larger batch takes fewer steps per epoch, so it learns otherwise):")
    print("\n".join(fastest))
    return 0


def _fastest(network: str, rates: dict[Choice, Spread]) -> Iterator[str]:
    usual = {choice: rate for choice, rate in rates.items() if choice.layout == "default"}
    small = {choice: rate for choice, rate in usual.items() if choice.batch_size == DEFAULT_BATCH_SIZE}
    best = [max(group, key=lambda choice: group[choice].median) for group in (small, usual)]
    for choice in dict.fromkeys(best):
        yield f"  vae train data=mnist model={network} {choice.command}    # {usual[choice].median:,.0f} images/s"
    faster = [c for c in rates if c.layout != "default" and rates[c].min > usual[_default_layout(c)].max]
    for choice in faster:
        yield f"  # contiguous weights are faster than the default layout with {choice.command}"


def _default_layout(choice: Choice) -> Choice:
    return Choice(choice.precision, choice.execution, choice.batch_size, choice.threads, "default")
