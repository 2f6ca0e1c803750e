"""The child process in which implementations run: reads requests from standard input and answers each with a line.

Implementations that are compared each have a process, since what vae_train sets for its process (denormal numbers, the
C library's memory) must not help the others, and since peak memory belongs to a process.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from benchmarks.implementation import Implementation, Unavailable
from benchmarks.memory import peak_resident
from benchmarks.workload import Settings

Answer = dict[str, Any]

IMPLEMENTATIONS = {
    "pytorch_loop": "PyTorchLoop",
    "pythae_baseline": "PythaeBaseline",
    "vae_train_loop": "VaeTrainLoop",
    "roofline": "Roofline",
    "imagefolder": "ImageFolderLoop",
    "cached": "CachedFolder",
}
"""Module -> class. A module is imported where its class is built, so that a process imports nothing else."""


class Server:
    """Answers requests about implementations, which it keeps by name."""

    def __init__(self) -> None:
        self.implementations: dict[str, Implementation] = {}

    def answer(self, request: str, **arguments: Any) -> Answer:
        """Answers one request."""
        requests: dict[str, Callable[..., Answer]] = {
            "build": self.build, "call": self.call, "drop": self.drop, "run": self.run, "memory": self.memory,
        }  # fmt: skip
        return requests[request](**arguments)

    def build(self, name: str, kind: str, options: dict[str, Any], settings: dict[str, Any]) -> Answer:
        """Builds an implementation.

        Raises:
            Unavailable: it cannot run on this machine.
        """
        create = getattr(import_module(f"benchmarks.{kind}"), IMPLEMENTATIONS[kind])
        self.implementations[name] = create(Settings.from_json(settings), **options)
        return {}

    def call(self, name: str, method: str, arguments: dict[str, Any]) -> Answer:
        """Calls a method of an implementation."""
        return getattr(self.implementations[name], method)(**arguments)

    def run(self, module: str, function: str, arguments: dict[str, Any]) -> Answer:
        """Calls a function of a benchmark module."""
        return getattr(import_module(f"benchmarks.{module}"), function)(**arguments)

    def drop(self, name: str) -> Answer:
        """Deletes an implementation."""
        del self.implementations[name]
        if "torch._dynamo" in sys.modules:  # importing it would take longer than the rest
            torch._dynamo.reset()
        return {}

    def memory(self) -> Answer:
        """The peak memory of this process in MiB; processes of a DataLoader are not counted."""
        answer: Answer = {"resident": peak_resident()}
        if torch.cuda.is_initialized():
            answer["device"] = torch.cuda.max_memory_reserved() / 2**20
        return answer


def main() -> None:
    """Serves until standard input ends."""
    # Libraries print to standard error; the original standard output is for the answers.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        try:
            answer = server.answer(**json.loads(line))
        except Unavailable as error:
            answer = {"unavailable": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
