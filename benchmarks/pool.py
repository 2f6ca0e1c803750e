"""Child processes with implementations, and the turns that they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.implementation import Unavailable
from benchmarks.workload import Settings

ROOT = Path(__file__).parents[1]

PAUSE_SECONDS = 0.3
"""Between two turns, so that the threads of the previous one stop spinning."""

Log = Callable[[str], None]
"""Prints a line of progress."""


class ProcessError(Exception):
    """A child process failed."""


class ChildProcess:
    """A process that runs benchmarks/process.py, within a `with` block."""

    def __enter__(self) -> ChildProcess:
        self._log = tempfile.TemporaryFile("w+", errors="replace")
        command = [sys.executable, "-m", "benchmarks.process"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._log, text=True, env=environment()
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            self._process.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def send(self, request: str, **arguments: Any) -> None:
        """Sends a request without waiting for the answer; see `benchmarks.process.Server`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `receive` reports what happened
            self._process.stdin.write(json.dumps({"request": request, **arguments}) + "\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The answer to the oldest request.

        Raises:
            Unavailable: the implementation cannot run on this machine.
            ProcessError: the process failed.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ProcessError(f"a child process ended with exit code {self._process.wait()}\n{self._last_output()}")
        answer: dict[str, Any] = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        if "error" in answer:
            raise ProcessError(f"{answer['error']}\n{self._last_output()}")
        return answer

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer."""
        self.send(request, **arguments)
        return self.receive()

    def run(self, module: str, function: str, **arguments: Any) -> dict[str, Any]:
        """Calls a function of a benchmark module in the process."""
        return self.ask("run", module=module, function=function, arguments=arguments)

    def _last_output(self) -> str:
        self._log.seek(0)
        return self._log.read()[-3000:]


@dataclass
class Worker:
    """An implementation in a child process."""

    name: str
    """The row of the tables."""
    kind: str
    """A key of `benchmarks.process.IMPLEMENTATIONS`."""
    settings: Settings
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the constructor."""
    process: ChildProcess | None = None
    """A shared process; None starts one."""
    seconds_per_step: float = 0.0
    """In the last steps of the warm-up."""
    loss: float = 0.0
    """Mean of the last steps of the warm-up."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What `Implementation.facts` returned."""

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Calls a method of the implementation."""
        assert self.process is not None
        return self.process.ask("call", name=self.name, method=method, arguments=arguments)

    def start_build(self) -> None:
        """Requests that the implementation is built, without waiting for it."""
        assert self.process is not None
        settings = self.settings.as_json()
        self.process.send("build", name=self.name, kind=self.kind, options=self.options, settings=settings)


class Pool:
    """Workers that take turns, within a `with` block.

    Args:
        workers: the workers; those whose implementation is unavailable are left out.
        log: reports those.
    """

    def __init__(self, workers: Iterable[Worker], log: Log) -> None:
        self.workers, self.log = list(workers), log
        self.unavailable: dict[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Pool:
        with ExitStack() as stack:
            for worker in self.workers:
                if worker.process is None:
                    worker.process = stack.enter_context(ChildProcess())
                else:
                    stack.callback(self._drop, worker)
                worker.start_build()
            self._for_each(lambda worker: worker.process.receive())  # type: ignore[union-attr]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def warm_up(self, steps: int, window: int) -> None:
        """Takes steps that are not timed and records the mean loss and the speed of the last ones.

        Args:
            steps: number of steps of every worker.
            window: how many of them the loss is averaged over.
        """

        def train(worker: Worker) -> None:
            if steps > window:
                worker.call("timed_steps", count=steps - window)
            last = worker.call("timed_steps", count=window)
            worker.loss, worker.seconds_per_step = last["loss"], last["seconds"] / window
            worker.facts = worker.call("facts")

        self._for_each(train)

    def time_steps(self, turn_seconds: float, repeats: int, min_steps: int = 2) -> dict[str, list[float]]:
        """Seconds per step of every worker in every repetition.

        Args:
            turn_seconds: approximate length of a turn.
            repeats: turns of each worker.
            min_steps: least number of steps of a turn.
        """
        counts = {w.name: max(min_steps, round(turn_seconds / w.seconds_per_step)) for w in self.workers}

        def measure(worker: Worker) -> float:
            count = counts[worker.name]
            return worker.call("timed_steps", count=count)["seconds"] / count

        return self.take_turns(repeats, measure)

    def take_turns(self, repeats: int, measure: Callable[[Worker], float]) -> dict[str, list[float]]:
        """Measures every worker in every repetition; the order of turns is reversed in every second repetition."""
        results: dict[str, list[float]] = {worker.name: [] for worker in self.workers}
        for repeat in range(repeats):
            for worker in self.workers if repeat % 2 == 0 else reversed(self.workers):
                time.sleep(PAUSE_SECONDS)
                results[worker.name].append(measure(worker))
        return results

    def peak_memory(self) -> dict[str, dict[str, int]]:
        """Peak memory of every worker's process in MiB."""
        answers = {w.name: w.process.ask("memory") for w in self.workers if w.process is not None}
        return {name: {kind: round(mib) for kind, mib in answer.items()} for name, answer in answers.items()}

    def _for_each(self, action: Callable[[Worker], Any]) -> None:
        """Applies an action to every worker and removes those that are unavailable."""
        for worker in list(self.workers):
            try:
                action(worker)
            except Unavailable as error:
                self.workers.remove(worker)
                self.unavailable[worker.name] = str(error)
                self.log(f"left out: {worker.name} ({error})")

    def _drop(self, worker: Worker) -> None:
        if worker in self.workers:
            with suppress(ProcessError):  # it was reported before
                assert worker.process is not None
                worker.process.ask("drop", name=worker.name)


def environment() -> dict[str, str]:
    """Environment variables of child processes, which import this checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
