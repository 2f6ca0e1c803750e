"""The process that contenders live in: reads a request per line from standard input and answers each with a line.

Every contender has a process of its own where it is compared with others, since what ours tells the process (denormal
numbers, the C library's memory) must not help them, and since the most memory used belongs to a process.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.contender import Contender, Missing
from benchmarks.memory import most_resident
from benchmarks.work import Setting, Work

Answer = dict[str, Any]

REQUESTS = ("machine", "build", "about", "steps", "epoch", "bare", "whole", "outside", "agreement", "start",
            "tutorial_start", "drop", "memory")  # fmt: skip
"""What a worker can be asked for: its methods."""


def make(kind: str, setting: Setting, knobs: dict[str, Any]) -> Contender:
    """A contender; only what it needs is imported.

    Args:
        kind: "plain", "pythae", "ours" or "floor"; "imagefolder" or "cached", which only read.
        setting: what is trained and on what.
        knobs: the constructor's further arguments.

    Raises:
        Missing: it cannot be had here.
    """
    if kind == "plain":
        from benchmarks.plain import Plain

        return Plain(setting, **knobs)
    if kind == "pythae":
        from benchmarks.library import Pythae

        return Pythae(setting, **knobs)
    if kind == "ours":
        from benchmarks.ours import Ours

        return Ours(setting, **knobs)
    if kind == "imagefolder":
        from benchmarks.imagefolder import Tutorial

        return Tutorial(setting, **knobs)
    if kind == "cached":
        from benchmarks.cached import Cached

        return Cached(setting, **knobs)
    from benchmarks.floor import Floor

    return Floor(setting, **knobs)


class Worker:
    """Answers requests. Contenders are kept under keys; most workers have one."""

    def __init__(self) -> None:
        self.contenders: dict[str, Contender] = {}

    def answer(self, do: str, **rest: Any) -> Answer:
        """Does what a request asks for; see the methods."""
        requests: dict[str, Callable[..., Answer]] = {name: getattr(self, name) for name in REQUESTS}
        return requests[do](**rest)

    def machine(self) -> Answer:
        """What this machine is, as PyTorch sees it."""
        from vae_train.util.runtime import cores

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
        return {"gpu": gpu, "cores": cores(), "threads": min(torch.get_num_threads(), cores()), **versions}

    def build(self, key: str, kind: str, knobs: dict[str, Any], setting: dict[str, Any]) -> Answer:
        """Makes a contender."""
        setting["work"] = Work.read(setting["work"])
        self.contenders[key] = make(kind, Setting(**setting), knobs)
        return {}

    def about(self, key: str) -> Answer:
        """See `Contender.about`."""
        return self.contenders[key].about()

    def steps(self, key: str, count: int) -> Answer:
        """See `Contender.timed`."""
        return self.contenders[key].timed(count)

    def epoch(self, key: str) -> Answer:
        """See `Contender.timed_epoch`."""
        return self.contenders[key].timed_epoch()

    def bare(self, key: str, count: int) -> Answer:
        """See `Ours.timed_bare`."""
        return self.contenders[key].timed_bare(count)  # type: ignore[attr-defined]

    def whole(self, key: str, count: int) -> Answer:
        """See `Ours.timed_whole`."""
        return self.contenders[key].timed_whole(count)  # type: ignore[attr-defined]

    def outside(self, key: str, count: int) -> Answer:
        """See `Contender.outside`."""
        least, most = self.contenders[key].outside(count)
        return {"least": least, "most": most}

    def agreement(self, key: str) -> Answer:
        """See `Cached.agreement`."""
        return self.contenders[key].agreement()  # type: ignore[attr-defined]

    def start(self, **where: Any) -> Answer:
        """See `benchmarks.cached.start`."""
        from benchmarks.cached import start

        return start(**where)

    def tutorial_start(self, root: str) -> Answer:
        """See `benchmarks.imagefolder.tutorial_start`."""
        from benchmarks.imagefolder import tutorial_start

        return tutorial_start(root)

    def drop(self, key: str) -> Answer:
        """Forgets a contender."""
        del self.contenders[key]
        if "torch._dynamo" in sys.modules:  # importing it takes longer than the rest
            torch._dynamo.reset()
        return {}

    def memory(self) -> Answer:
        """The most memory that this process had, in MiB; processes of a DataLoader are not counted."""
        answer: Answer = {"resident": most_resident()}
        if torch.cuda.is_initialized():
            answer["device"] = torch.cuda.max_memory_reserved() / 2**20
        return answer


def main() -> None:
    """Serves until standard input ends."""
    # What libraries print goes to standard error; the answers have the old standard output for themselves.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(**json.loads(line))
        except Missing as why:
            answer = {"missing": str(why)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
