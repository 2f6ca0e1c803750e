"""The parent's side of workers: contenders that are compared with each other, and the turns that they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contender import Missing
from benchmarks.work import Setting

ROOT = Path(__file__).parents[1]

PAUSE = 0.3
"""Seconds between two turns, in which the threads of the one before stop spinning."""

Say = Callable[[str], None]


class Broken(Exception):
    """A worker failed; says how."""


class Process:
    """A worker process, within a `with` block; see benchmarks/worker.py."""

    def __enter__(self) -> Process:
        self._log = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(),
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

    def send(self, do: str, **rest: Any) -> None:
        """Asks for something without waiting for the answer."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `receive` says what happened
            self._process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The answer to the oldest request.

        Raises:
            Missing: the contender cannot be had here.
            Broken: the worker failed.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Broken(f"a worker ended with code {self._process.wait()}\n{self._tail()}")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise Missing(answer["missing"])
        if "error" in answer:
            raise Broken(f"{answer['error']}\n{self._tail()}")
        return answer

    def ask(self, do: str, **rest: Any) -> dict[str, Any]:
        """Asks for something and waits for the answer."""
        self.send(do, **rest)
        return self.receive()

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read()[-3000:]


@dataclass
class Member:
    """A contender in a worker."""

    name: str
    """As tables have it."""
    kind: str
    """See `benchmarks.worker.make`."""
    setting: Setting
    knobs: dict[str, Any] = field(default_factory=dict)
    process: Process | None = None
    """Where it lives; None for a process of its own."""
    seconds_per_step: float = 0.0
    loss: float = 0.0
    """Mean of the last steps before the timing."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What `Contender.about` says."""

    def send(self, do: str, **rest: Any) -> None:
        """See `Process.send`."""
        assert self.process is not None
        self.process.send(do, key=self.name, **rest)

    def ask(self, do: str, **rest: Any) -> dict[str, Any]:
        """Asks the worker for something that is about this contender."""
        self.send(do, **rest)
        assert self.process is not None
        return self.process.receive()

    def build(self) -> None:
        """Asks for the contender to be built, without waiting for it."""
        self.send("build", kind=self.kind, knobs=self.knobs, setting=asdict(self.setting))


class Team:
    """Contenders that take turns, within a `with` block, which leaves nothing of them behind.

    Args:
        members: the contenders.
        say: told of those that cannot be had here.
    """

    def __init__(self, members: Iterable[Member], say: Say) -> None:
        self.members, self.say = list(members), say
        self.absent: dict[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Team:
        with ExitStack() as stack:
            for member in self.members:
                if member.process is None:
                    member.process = stack.enter_context(Process())
                else:
                    stack.callback(self._drop, member)
                member.build()
            self._each(lambda member: member.process.receive())  # type: ignore[union-attr]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def warm_up(self, steps: int, window: int) -> None:
        """Trains everybody for some steps that are not timed; notes the loss and the speed of the last ones.

        Args:
            steps: how many in all.
            window: how many of them, the last ones, the loss is the mean of.
        """

        def train(member: Member) -> None:
            if steps > window:
                member.ask("steps", count=steps - window)
            last = member.ask("steps", count=window)
            member.loss, member.seconds_per_step = last["loss"], last["seconds"] / window
            member.facts = member.ask("about")

        self._each(train)

    def turns(self, seconds: float, repeats: int, least: int = 2) -> dict[str, list[float]]:
        """Seconds per step of every member in every repetition.

        Args:
            seconds: about how long a turn is.
            repeats: turns of each.
            least: steps in a turn, at least.
        """
        counts = {m.name: max(least, round(seconds / m.seconds_per_step)) for m in self.members}
        return self.rounds(repeats, lambda m: m.ask("steps", count=counts[m.name])["seconds"] / counts[m.name])

    def rounds(self, repeats: int, measure: Callable[[Member], Any]) -> dict[str, list[Any]]:
        """What `measure` says of every member in every repetition: they take turns, forwards and then backwards."""
        found: dict[str, list[Any]] = {member.name: [] for member in self.members}
        for repeat in range(repeats):
            for member in self.members if repeat % 2 == 0 else reversed(self.members):
                time.sleep(PAUSE)
                found[member.name].append(measure(member))
        return found

    def _each(self, work: Callable[[Member], Any]) -> None:
        """Does something with one member after the other; one that cannot be had here leaves the team."""
        for member in list(self.members):
            try:
                work(member)
            except Missing as why:
                self.members.remove(member)
                self.absent[member.name] = str(why)
                self.say(f"left out: {member.name} ({why})")

    def _drop(self, member: Member) -> None:
        if member in self.members:
            with suppress(Broken):  # it has been told of already
                member.ask("drop")


def environment() -> dict[str, str]:
    """The variables of child processes: they find this checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
