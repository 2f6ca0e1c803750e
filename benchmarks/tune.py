"""`scripts/bench --tune`: which precision, execution, batch size and threads are fastest on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.compare import missing_support
from benchmarks.measurement import Measurement
from benchmarks.pool import ChildProcess, Log, Pool, Worker
from benchmarks.report import markdown_table, show
from benchmarks.workload import MNIST_SHAPE, Settings, Workload

NETWORKS = {"mlp": "mlp 784-400-20", "conv": "conv 28x28x1"}
BATCH_SIZES, DEFAULT_BATCH_SIZE = (128, 512, 2048), 128
NUM_IMAGES, WARMUP_STEPS = 4_096, 4


@dataclass(frozen=True)
class Candidate:
    """One combination of settings."""

    precision: str
    execution: str
    batch_size: int
    threads: int

    @property
    def overrides(self) -> str:
        """The settings as they are typed."""
        settings = f"batch_size={self.batch_size} precision={self.precision} execution={self.execution}"
        return f"{settings} threads={self.threads}"


def candidates(device: str, max_threads: int, quick: bool) -> list[Candidate]:
    """All combinations that are measured on a device."""
    on_cpu = device == "cpu"
    executions = ("eager", "compile") if on_cpu else ("eager", "compile", "graph")
    precisions = ("float32", "bfloat16") if on_cpu else ("float32", "tf32", "bfloat16")
    threads = sorted({1, max_threads}) if on_cpu else [max_threads]
    return [
        Candidate(precision, execution, batch_size, count)
        for count in threads
        for precision in precisions
        for execution in executions
        for batch_size in BATCH_SIZES[: 2 if quick else None]
    ]


def measure(
    candidates: list[Candidate], network: str, device: str, repeats: int, turn_seconds: float, log: Log
) -> dict[Candidate, Measurement]:
    """Images per second of every combination, in turns; those with equal threads and precision share a process."""
    processes: dict[tuple[int, str], ChildProcess] = {}
    with ExitStack() as stack:
        workers = {}
        for candidate in candidates:
            key = (candidate.threads, candidate.precision)
            if key not in processes:
                processes[key] = stack.enter_context(ChildProcess())
            workload = Workload(network, MNIST_SHAPE, candidate.batch_size)  # type: ignore[arg-type]
            options = {"precision": candidate.precision, "execution": candidate.execution}
            settings = Settings(workload, NUM_IMAGES, device, candidate.threads)
            workers[candidate] = Worker(candidate.overrides, "vae_train_loop", settings, options, processes[key])
        with Pool(workers.values(), log) as pool:
            log(f"{network}: {len(pool.workers)} combinations in {len(processes)} processes")
            pool.warm_up(WARMUP_STEPS, 1)
            seconds = pool.time_steps(turn_seconds, repeats, min_steps=1)
    by_name = {worker.name: candidate for candidate, worker in workers.items()}
    return {by_name[n]: Measurement.of([by_name[n].batch_size / t for t in times]) for n, times in seconds.items()}


def table(rates: dict[Candidate, Measurement]) -> str:
    """Images per second; batch sizes are columns."""
    sizes = sorted({candidate.batch_size for candidate in rates})
    rows: dict[tuple[str, ...], dict[int, Measurement]] = {}
    for candidate, rate in rates.items():
        key = (candidate.precision, candidate.execution, str(candidate.threads))
        rows.setdefault(key, {})[candidate.batch_size] = rate
    head = ["precision", "execution", "threads", *(f"batch {size}" for size in sizes)]
    cells = [
        [*key, *(show(rates[size].as_json(), 0) if size in rates else "–" for size in sizes)]
        for key, rates in rows.items()
    ]
    return markdown_table(head, cells)


def main(device: str, threads: int, repeats: int | None, quick: bool, log: Log) -> int:
    """Prints the tables and the fastest settings as command lines."""
    fastest: list[str] = []
    for network, title in NETWORKS.items():
        reasons = {c: missing_support(device, c.execution, c.precision) for c in candidates(device, threads, quick)}
        for reason in sorted({reason for reason in reasons.values() if reason}):
            print(f"left out: {reason}")
        supported = [candidate for candidate, reason in reasons.items() if reason is None]
        rates = measure(supported, network, device, repeats or (2 if quick else 3), 0.3 if quick else 0.6, log)
        print(f"\n{title}, images per second: median (min – max)\n\n{table(rates)}\n", flush=True)
        fastest += _fastest(network, rates)
    print("fastest (with a larger batch an epoch has fewer steps, so the results of training differ):")
    print("\n".join(fastest))
    return 0


def _fastest(network: str, rates: dict[Candidate, Measurement]) -> Iterator[str]:
    default_size = {candidate: rate for candidate, rate in rates.items() if candidate.batch_size == DEFAULT_BATCH_SIZE}
    best = [max(group, key=lambda candidate: group[candidate].median) for group in (default_size, rates)]
    for candidate in dict.fromkeys(best):
        rate = rates[candidate].median
        yield f"  vae train data=mnist model={network} {candidate.overrides}    # {rate:,.0f} images/s"
