"""How the workers of a sweep are started: as processes of this machine, or as jobs of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vae_train.cli.jobs import Job
from vae_train.runs.cluster import CLUSTER_FOLDER, Launcher
from vae_train.runs.pool import Pool, WorkerOptions, num_gpus, worker_command
from vae_train.runs.worker import Policy
from vae_train.util.text import counted

log = logging.getLogger("vae_train")


def local_workers(job: Job, expected: int = 0) -> Callable[[Path], object] | None:
    """What runs several workers on this machine; None if this process is the only one.

    Args:
        job: the first job of the sweep.
        expected: number of jobs if more will be added.
    """
    settings = job.settings
    number = settings.workers or (settings.per_gpu or 0) * num_gpus(settings.device) or 1
    if number == 1:
        return None
    options = WorkerOptions(number, settings.device, job.config["threads"], _allowed(job))
    return lambda folder: Pool(folder, options, policy_of(settings), expected).run()


def policy_of(settings: Any) -> Policy:
    """What a command does about jobs that fail."""
    return Policy(settings.retry, settings.stop_on_failure)


def launcher_of(job: Job) -> Launcher | None:
    """What submits the workers to a cluster, if that was chosen."""
    node = job.config.get("launch")
    return None if node is None else job.builder.build(node)


def submit(launcher: Launcher, job: Job, folder: Path) -> None:
    """Submits the workers to a cluster."""
    settings, threads = job.settings, job.config["threads"]
    options = [f"threads={threads}"] * (threads is not None) + [*_allowed(job)]
    command = worker_command(folder, policy_of(settings), options)
    jobs = launcher.submit(folder, command, settings.workers or 1, settings.per_gpu or 1)
    log.info("submitted %s: %s; logs: %s", counted(len(jobs), "job"), ", ".join(jobs), folder / CLUSTER_FOLDER)
    log.info("table, also while they run: vae sweep sweep=%s", folder.name)


def _allowed(job: Job) -> tuple[str, ...]:
    """The setting `allow=` as typed, if there is one."""
    return tuple(override for override in job.overrides if override.startswith("allow="))
