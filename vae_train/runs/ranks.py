"""What rank 0 of a training tells the other ranks, and errors of a configuration that they cannot train together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from vae_train.batch import DataFacts
from vae_train.runs import compatibility
from vae_train.runs.build import Builder, Training
from vae_train.runs.config import Config
from vae_train.runs.defaults import run_epochs
from vae_train.training.ranks import Ranks
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.files import SavedPath
from vae_train.util.runtime import cores, resolve_device


class Dismissed(Exception):
    """Rank 0 ended before the training began.

    Args:
        code: its exit code.
    """

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"exit code {code}")


def dismiss(ranks: Ranks, code: int) -> None:
    """Lets the other ranks end with an exit code instead of what they wait for."""
    ranks.broadcast({"exit": code})


def received(ranks: Ranks) -> Any:
    """What rank 0 tells this rank.

    Raises:
        Dismissed: rank 0 has ended.
    """
    message = ranks.broadcast(None)
    if isinstance(message, dict) and "exit" in message:
        raise Dismissed(message["exit"])
    return message


def tell_configuration(ranks: Ranks, config: Config, builder: Builder) -> None:
    """Tells the other ranks what to train."""
    if ranks.size > 1:
        saved = [path for path, value in config.leaves().items() if isinstance(value, SavedPath)]
        ranks.broadcast({"config": json.dumps(config.to_dict()), "allow": list(builder.allow), "saved": saved})


def received_configuration(ranks: Ranks) -> tuple[Config, Sequence[str]]:
    """The configuration of rank 0, and the packages that it allows."""
    message = received(ranks)
    config = Config(json.loads(message["config"]))
    return config.with_values({path: SavedPath(config.at(path)) for path in message["saved"]}), message["allow"]


def compare_data(ranks: Ranks, checksum: str) -> None:
    """Waits until all ranks have read the data.

    Raises:
        UsageError: the data of this rank differs from that of rank 0.
    """
    if ranks.size == 1:
        return
    if (ranks.broadcast(checksum) if ranks.rank == 0 else received(ranks)) != checksum:
        raise UsageError("the data differs from that of rank 0; use the same files on all machines")
    ranks.largest(0)


def begin(ranks: Ranks, training: Training, state: dict[str, Any] | None, hint: str) -> dict[str, Any] | None:
    """Gives all ranks the state of rank 0; returns the state to resume from, if there is one.

    Args:
        ranks: the processes.
        training: the training of this rank; its learner receives the initial weights of rank 0.
        state: a checkpoint to resume from, on rank 0.
        hint: how to go on if a rank is lost, on rank 0.
    """
    if ranks.size == 1:
        return state
    initial = training.learner.state_dict() if state is None else None
    message = {"resumed": state, "initial": initial, "hint": hint}
    message = ranks.broadcast(message) if ranks.rank == 0 else received(ranks)
    if ranks.rank > 0 and message["initial"] is not None:
        training.learner.load_state_dict(message["initial"])
    ranks.started(message["hint"])
    return message["resumed"]


def device_of(name: str, ranks: Ranks) -> torch.device:
    """The device of this rank: the ranks of a machine have different GPUs."""
    device = resolve_device(name)
    return torch.device("cuda", ranks.local_rank) if device.type == "cuda" and ranks.size > 1 else device


def threads_of(threads: int | None, ranks: Ranks) -> int | None:
    """CPU threads of this rank: the ranks of a machine divide its cores."""
    if threads is None and ranks.size > 1:
        return max(1, min(torch.get_num_threads(), cores() // ranks.local_size))
    return threads


def sharing_errors(config: Config, facts: DataFacts, builder: Builder, ranks: Ranks) -> list[ErrorDetail]:
    """Settings that several ranks, or the shards of a batch, do not support.

    Args:
        config: the resolved configuration.
        facts: facts about the data.
        builder: locates classes.
        ranks: the processes.
    """
    learner, batch_size = config["learner"], run_epochs(config, facts).batch_size
    shards, where = learner["shards"], f"distributed.exact={learner['shards']}"
    parts, errors = shards or ranks.size, list[ErrorDetail]()
    if parts == 1:
        return []
    if batch_size < parts:
        message = f"is less than the {parts} {'shards' if shards else 'ranks'}, of which each needs an image"
        errors.append(ErrorDetail(f"batch_size={batch_size}", message))
    if shards and shards % ranks.size:
        multiple = ranks.size * (1 + shards // ranks.size)
        message = f"is not a multiple of the {ranks.size} ranks; use distributed.exact={multiple}"
        errors.append(ErrorDetail(where, message))
    if shards and learner["grad_accumulation"] > 1:
        message = f"divides the batch already, into {shards} shards; use learner.grad_accumulation=1"
        errors.append(ErrorDetail(where, message))
    coupling = compatibility.coupled(config["model"], config["objective"], builder.locate, gathered=not shards)
    instead = "distributed.exact=null" if shards else "one process"
    reason = f"the loss of {{}} depends on the whole batch, which cannot be divided; use {instead}"
    errors += [ErrorDetail(where if shards else f"{ranks.size} ranks", reason.format(name)) for name in coupling]
    return errors + (_process_errors(config, builder, ranks) if ranks.size > 1 else [])


def _process_errors(config: Config, builder: Builder, ranks: Ranks) -> list[ErrorDetail]:
    """Devices and modes of execution that several processes do not support."""
    name, errors = str(config["device"]), list[ErrorDetail]()
    device = resolve_device(name)
    if device.type == "mps" or device.index is not None:
        hint = "device=cpu" if device.type == "mps" else "device=cuda, which gives every rank a GPU"
        errors.append(ErrorDetail(f"device={name}", f"does not work with {ranks.size} ranks; use {hint}"))
    elif device.type == "cuda" and ranks.local_size > (count := torch.cuda.device_count()):
        message = f"this machine has {count} GPU{'s' * (count > 1)} for {ranks.local_size} ranks; start {count}"
        errors.append(ErrorDetail(f"device={name}", message))
    is_coupled = compatibility.coupled(config["model"], config["objective"], builder.locate, gathered=False)
    if is_coupled and config["trainer"]["execution"] == "compile":
        message = f"cannot compile a loss that {ranks.size} ranks compute together; use execution=eager"
        errors.append(ErrorDetail("execution=compile", message))
    return errors
