"""Several processes that `torch.distributed` connects: gloo on the CPU, NCCL on CUDA.

`torchrun` and `srun` start the processes and tell each its number in environment variables.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.training.ranks import Ranks
from vae_train.util.errors import RankLostError, UsageError
from vae_train.util.ranges import PositiveInt

Launcher = Literal["torchrun", "slurm"]

WAIT = timedelta(minutes=30)
"""Longest time that ranks wait for each other, for instance for images that rank 0 downloads."""

SPEAKERS, ERROR, LEFT = "speakers", "error", "left"
"""Keys of the store: ranks that report the end of another one, the error of a rank, and ranks that have ended."""

PATIENCE_S, LINGER_S = 3.0, 5.0
"""Seconds that ranks leave the report of a lost rank to rank 0, and that a failing rank 0 waits for the others."""


@dataclass
class Distributed:
    """How a training is divided among several processes.

    Args:
        launcher: "torchrun", or "slurm" if `srun` started the processes.
        exact: parts of a batch whose gradients are added in order, see `Learner`; None for the fastest order.
    """

    launcher: Launcher
    exact: PositiveInt | None


class Place(NamedTuple):
    """The number of this process, and where the first one listens."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int

    @classmethod
    def find(cls, launcher: Launcher, variables: Mapping[str, str]) -> Place | None:
        """The place that the launcher has set; None for a single process.

        Args:
            launcher: who started the processes.
            variables: environment variables.

        Raises:
            UsageError: they are missing or invalid.
        """
        try:
            place = cls._of_slurm(variables) if launcher == "slurm" else cls._of_torchrun(variables)
        except KeyError as error:
            raise UsageError(
                f"distributed={launcher}: {error.args[0]} is not set; start vae train with srun"
            ) from error
        except ValueError as error:
            raise UsageError(f"distributed={launcher}: invalid environment variable ({error})") from error
        return None if place is None or place.size == 1 else place

    @classmethod
    def _of_torchrun(cls, variables: Mapping[str, str]) -> Place | None:
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= variables.keys():
            return None
        rank, size = int(variables["RANK"]), int(variables["WORLD_SIZE"])
        local = int(variables.get("LOCAL_RANK", rank)), int(variables.get("LOCAL_WORLD_SIZE", size))
        return cls(rank, size, *local, variables["MASTER_ADDR"], int(variables["MASTER_PORT"]))

    @classmethod
    def _of_slurm(cls, variables: Mapping[str, str]) -> Place:
        rank, size, local = (int(variables[f"SLURM_{name}"]) for name in ("PROCID", "NTASKS", "LOCALID"))
        nodes = variables.get("SLURM_STEP_NODELIST") or variables["SLURM_NODELIST"]
        per_node = tasks_per_node(variables.get("SLURM_STEP_TASKS_PER_NODE") or variables["SLURM_TASKS_PER_NODE"])
        # Jobs of one machine have different numbers, so they do not share a port.
        port = FIRST_PORT + int(variables["SLURM_JOB_ID"]) % NUM_PORTS
        address = variables.get("MASTER_ADDR", first_host(nodes))
        local_size = per_node[int(variables["SLURM_NODEID"])]
        return cls(rank, size, local, local_size, address, int(variables.get("MASTER_PORT", port)))


FIRST_PORT, NUM_PORTS = 20_000, 12_000
"""Ports of jobs of Slurm, below those that systems give to outgoing connections."""


def first_host(nodes: str) -> str:
    """The first host of a Slurm list such as "gpu[07-09,12],login"."""
    match = re.match(r"([^\[,]+)(?:\[(\w+)[^\]]*\])?([^,]*)", nodes)
    if match is None:
        raise ValueError(f"{nodes} is not a list of hosts")
    return f"{match[1]}{match[2] or ''}{match[3]}"


def tasks_per_node(text: str) -> list[int]:
    """The number of processes of every machine of a Slurm list: "4(x2),3" is [4, 4, 3]."""
    parts = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(",")]
    return [int(part[1]) for part in parts if part is not None for _ in range(int(part[2] or 1))]


class ProcessRanks(Ranks):
    """The ranks of a training in several processes, connected by gloo; see `use` for CUDA.

    Args:
        place: the place of this process.
    """

    def __init__(self, place: Place) -> None:
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        self.rank, self.size, self.local_rank, self.local_size = place[:4]
        self.is_waiting = True
        """Whether the other ranks wait for an object of rank 0, not yet for gradients."""
        self.is_lost = False
        """Whether another rank has ended."""
        self.hint = ""
        """How to go on if another rank has ended, for messages."""
        os.environ |= {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port)}
        with self._noticing():
            self._store, *_ = next(iter(rendezvous("env://", self.rank, self.size, timeout=WAIT)))
            dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=WAIT)
        self._group: Any = None
        """The connections for tensors of the training device; None for those of the CPU."""

    @override
    def use(self, device: torch.device) -> None:
        import torch.distributed as dist

        if device.type == "cuda":
            torch.cuda.set_device(device)
            with self._noticing():
                self._group = dist.new_group(backend="nccl", timeout=WAIT)

    @override
    def started(self, hint: str) -> None:
        self.is_waiting, self.hint = False, hint

    @override
    def add(self, x: Tensor) -> Tensor:
        import torch.distributed as dist

        with self._noticing():
            dist.all_reduce(x, group=self._group)
        return x

    @override
    def gather(self, x: Tensor) -> Tensor:
        import torch.distributed as dist

        gathered = x.new_empty(self.size, *x.shape)
        with self._noticing():
            dist.all_gather(list(gathered.unbind()), x.contiguous(), group=self._group)
        return gathered

    @override
    def broadcast(self, value: Any) -> Any:
        import torch.distributed as dist

        buffer = io.BytesIO()
        if self.rank == 0:
            torch.save(value, buffer)
        payload = torch.frombuffer(bytearray(buffer.getvalue() or b"-"), dtype=torch.uint8)
        with self._noticing():
            length = torch.tensor(len(payload))
            dist.broadcast(length, 0)
            if self.rank > 0:
                payload = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(payload, 0)
        if self.rank == 0:
            return value
        return torch.load(io.BytesIO(payload.numpy().tobytes()), map_location="cpu", weights_only=True)

    @override
    def largest(self, value: int) -> int:
        import torch.distributed as dist

        number = torch.tensor(value)
        with self._noticing():
            dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Raises a RankLostError for errors of communication."""
        try:
            yield
        except RuntimeError as error:
            self.is_lost = True
            cause = "another rank ended or does not answer"
            with suppress(RuntimeError):
                if self._store.check([ERROR]):
                    cause = self._store.get(ERROR).decode()
            raise RankLostError(cause + self.hint, not self._speaks()) from error

    def _speaks(self) -> bool:
        """Whether this rank reports that another one has ended: rank 0 if it can, and only one."""
        try:
            end = time.monotonic() + (PATIENCE_S if self.rank else 0.0)
            while time.monotonic() < end and not self._store.check([SPEAKERS]):
                time.sleep(0.05)
            return self._store.add(SPEAKERS, 1) == 1
        except RuntimeError:  # rank 0, which has the store unless torchrun has it, is gone
            return self.rank == 1

    def fail(self, message: str) -> None:
        """Leaves the report of an error of this rank to rank 0."""
        with suppress(RuntimeError):
            self._store.set(ERROR, f"rank {self.rank}: {message}")

    def close(self, failed: bool) -> None:
        """Disconnects this rank.

        Args:
            failed: whether it ended early, so that the others cannot go on. What failed has been reported.
        """
        import torch.distributed as dist

        with suppress(RuntimeError):
            if failed and self.rank == 0:
                self._store.add(SPEAKERS, 1)
            dist.destroy_process_group()  # which the others notice
            self._store.add(LEFT, 1)
            end = time.monotonic() + LINGER_S
            while self.rank == 0 and time.monotonic() < end and self._store.add(LEFT, 0) < self.size:
                time.sleep(0.05)
