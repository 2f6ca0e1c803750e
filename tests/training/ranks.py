"""Several gloo ranks for tests: processes that live as long as a test module and run functions."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.multiprocessing as mp

from vae_train.training.distributed import Place, ProcessRanks


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _work(place: Place, tasks: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    ranks = ProcessRanks(place)
    while (task := tasks.get()) is not None:
        function, arguments = task
        try:
            answers.put((place.rank, function(ranks, *arguments)))
        except Exception as error:
            answers.put((place.rank, error))
            break
    ranks.close(failed=False)


def can_fork() -> bool:
    """Whether forked processes can compute gradients, which they cannot once autograd has threads here."""
    if (child := os.fork()) == 0:
        try:
            torch.ones(1, requires_grad=True).sum().backward()
        except RuntimeError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


class Team:
    """Processes of `size` ranks."""

    def __init__(self, size: int) -> None:
        self.is_broken = False
        # Forked processes have what this one has imported and composed.
        context, port = mp.get_context("fork" if can_fork() else "spawn"), free_port()
        self.tasks, self.answers = [context.Queue() for _ in range(size)], context.Queue()
        places = [Place(rank, size, rank, size, "127.0.0.1", port) for rank in range(size)]
        self.processes = [
            context.Process(target=_work, args=(place, tasks, self.answers), daemon=True)
            for place, tasks in zip(places, self.tasks, strict=True)
        ]
        for process in self.processes:
            process.start()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `function(ranks, *arguments)` returns on every rank."""
        assert not self.is_broken, "an earlier test ended the ranks"
        for tasks in self.tasks:
            tasks.put((function, arguments))
        answers = dict(self.answers.get(timeout=60) for _ in self.processes)
        for answer in answers.values():
            if isinstance(answer, Exception):
                self.is_broken = True
                raise answer
        return [answers[rank] for rank in range(len(self.processes))]

    def close(self) -> None:
        for tasks in self.tasks:
            tasks.put(None)
        for process in self.processes:
            process.join(20)


@contextmanager
def team(size: int) -> Iterator[Team]:
    members = Team(size)
    try:
        yield members
    finally:
        members.close()


def equal(answers: Sequence[Any]) -> bool:
    """Whether all ranks returned the same bits."""
    first, *others = answers
    return all(len(other) == len(first) and all(map(torch.equal, other, first)) for other in others)
