"""Several worker processes of a sweep on this machine, and the process that started them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from vae_train.runs.run import write_json
from vae_train.runs.sweep_display import SweepDisplay
from vae_train.runs.sweep_file import SweepJob, read_jobs
from vae_train.runs.worker import Policy
from vae_train.training.signals import StopRequest
from vae_train.util.errors import Stopped
from vae_train.util.files import appending
from vae_train.util.locks import is_locked_by, locked
from vae_train.util.runtime import cores

log = logging.getLogger("vae_train")

POLL_S = 0.1
"""Seconds between two looks at the processes."""

MAX_DEATHS = 2
"""A job whose worker dies this often has failed."""

WORKERS_FOLDER = "workers"


class WorkerOptions(NamedTuple):
    """How many workers there are, and what they run on."""

    number: int
    device: str
    """auto, cpu, cuda, cuda:1, mps; "auto" and "cuda" assign the GPUs in turn."""
    threads: int | None
    """CPU threads of each worker; None divides the cores."""
    allow: tuple[str, ...] = ()
    """The setting `allow=` as typed, if there is one."""

    def settings(self, index: int) -> list[str]:
        """The settings of a worker; the first has index 0."""
        gpus = num_gpus(self.device)
        device = f"cuda:{index % gpus}" if gpus else self.device
        threads = self.threads or max(1, cores() // self.number)
        return [f"device={device}", f"threads={threads}", *self.allow]


def num_gpus(device: str) -> int:
    """The number of GPUs that workers with this setting share; 0 if they do not choose among GPUs."""
    return torch.cuda.device_count() if device in ("auto", "cuda") else 0


class _Process(NamedTuple):
    number: int
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Waits for its end, and closes its standard input."""
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


class Pool:
    """Runs the workers of a sweep until nothing is left.

    A worker ends when this process does, since it notices that its standard input was closed. If a worker dies, another
    one takes its place and goes on with its job.

    Args:
        sweep: the folder of the sweep.
        options: the number of workers and what they run on.
        policy: what is done about jobs that fail.
        expected: see `SweepDisplay`.
    """

    def __init__(self, sweep: Path, options: WorkerOptions, policy: Policy, expected: int = 0) -> None:
        self.sweep, self.options, self.policy, self.expected = sweep, options, policy, expected
        self._alive: list[_Process] = []
        self._deaths = Counter[str]()

    def run(self) -> None:
        """Starts the workers, and waits for them.

        Raises:
            Stopped: a signal arrived; all workers have saved their states.
        """
        (self.sweep / WORKERS_FOLDER).mkdir(exist_ok=True)
        try:
            with StopRequest() as stop, SweepDisplay(self.sweep, self.options.number, self.expected) as display:
                self._alive = [self._start(index) for index in range(self.options.number)]
                while self._alive:
                    if stop.signal is not None:
                        self._stop()
                        raise Stopped(stop.signal, "interrupted; checkpoints saved")
                    self._replace_ended()
                    display.update()
                    if display.failures and self.policy.stop_on_failure:
                        log.info("stopping all workers, since stop_on_failure=true")
                        self._stop()
                    time.sleep(POLL_S)
                display.update()
        finally:
            for worker in self._alive:
                worker.process.kill()  # only after an error, or a second Ctrl-C
                worker.wait()

    def _start(self, number: int) -> _Process:
        arguments = worker_command(self.sweep, self.policy, self.options.settings(number))
        command = [sys.executable, "-m", "vae_train", *arguments]
        with appending(self.log_file(number)) as file:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)
        return _Process(number, process)

    def log_file(self, number: int) -> Path:
        """What a worker prints."""
        return self.sweep / WORKERS_FOLDER / f"{number + 1}.log"

    def _stop(self) -> None:
        """Asks all workers to stop, and waits until they have saved their states."""
        for worker in self._alive:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self._alive:
            worker.wait()
        self._alive = []

    def _replace_ended(self) -> None:
        """Replaces workers that died; others have nothing left to do."""
        for worker in list(self._alive):
            code = worker.process.poll()
            if code is None:
                continue
            worker.wait()
            self._alive.remove(worker)
            if code == 0:
                continue
            job = next((job for job in read_jobs(self.sweep) if self._was_held(job, worker.process.pid)), None)
            reason = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            what = f" while it trained {job.folder}" if job else ""
            log.error("worker %d %s%s; see %s", worker.number + 1, reason, what, self.log_file(worker.number))
            if job is not None:
                self.count_death(job, reason)
                self._alive.append(self._start(worker.number))

    def _was_held(self, job: SweepJob, process: int) -> bool:
        return is_locked_by(job.files(self.sweep).lock_file, process)

    def count_death(self, job: SweepJob, reason: str) -> None:
        """Records that a job killed its worker; after a few times it has failed, so that others are not held up."""
        self._deaths[job.folder] += 1
        if self._deaths[job.folder] >= MAX_DEATHS:
            with locked(job.files(self.sweep).lock_file):
                write_json(job.files(self.sweep).summary_file, {"status": "failed", "error": f"its worker {reason}"})


def worker_command(sweep: Path, policy: Policy, settings: Sequence[str]) -> list[str]:
    """The command line of a worker that ends with its parent, without the program."""
    policies = [f"{name}={str(value).lower()}" for name, value in policy._asdict().items()]
    return ["worker", f"sweep={sweep.name}", "parent=true", *policies, *settings]


def end_with_parent() -> None:
    """Stops this process, like SIGTERM does, when its standard input is closed because its parent has ended."""
    parent = os.dup(sys.stdin.fileno())
    os.set_inheritable(parent, False)

    def wait() -> None:
        os.read(parent, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
