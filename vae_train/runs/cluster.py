"""Workers of a sweep as jobs of a cluster, submitted with submitit."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import override

from vae_train.util.errors import ErrorDetail, RunError, collecting
from vae_train.util.extras import import_extra
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Range

CLUSTER_FOLDER = "cluster"
"""Folder of a sweep with the files of submitit: scripts, and what the jobs print."""

POLL_S = 0.2
"""Seconds between two looks at the processes of a job."""


class Launcher(ABC):
    """Submits workers of a sweep, and does not wait for them.

    Args:
        minutes: time limit of a job.
        requeues: how often a job is queued again after its time limit or a pre-emption.
        notice: seconds before the time limit at which a job saves its state.
    """

    def __init__(self, minutes: PositiveFloat, requeues: NonNegativeInt, notice: PositiveInt) -> None:
        self.minutes, self.requeues, self.notice = minutes, requeues, notice

    def errors(self) -> list[ErrorDetail]:
        """Reports what prevents the submission."""
        errors = list[ErrorDetail]()
        with collecting(errors, f"launch={type(self).__name__.lower()}"):
            import_extra("submitit", "cluster")
        return errors

    @abstractmethod
    def executor(self, folder: Path, name: str) -> Any:
        """submitit's executor, with the parameters of a job.

        Args:
            folder: where its files go.
            name: that of the jobs.
        """

    def submit(self, sweep: Path, command: Sequence[str], number: int, per_job: int = 1) -> list[str]:
        """Submits jobs, as one array.

        Args:
            sweep: the folder of the sweep.
            command: the command line of a worker, without the program.
            number: number of jobs.
            per_job: workers in a job.

        Returns:
            The identifiers of the jobs.

        Raises:
            RunError: the cluster rejected them.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        worker = ClusterJob([list(command)] * per_job, self.requeues)
        try:
            executor = self.executor(sweep / CLUSTER_FOLDER, f"vae-{sweep.name}")
            with executor.batch():
                jobs = [executor.submit(worker) for _ in range(number)]
        except (FailedSubmissionError, FailedJobError, OSError, ValueError) as error:
            raise RunError(f"the jobs could not be submitted: {error}") from error
        return [str(job.job_id) for job in jobs]


class Slurm(Launcher):
    """Jobs of a Slurm cluster.

    Args:
        partition: the partition; None for the cluster's default.
        minutes, requeues, notice: see `Launcher`.
        gpus: GPUs of a job.
        cpus: CPU cores of a job.
        memory: memory of a job in GiB; None for the cluster's default.
        options: other options of sbatch, each as "name=value" or "name".
    """

    def __init__(
        self,
        partition: str | None,
        minutes: PositiveFloat,
        gpus: Annotated[int, Range(0, 1)],
        cpus: PositiveInt,
        memory: PositiveFloat | None,
        requeues: NonNegativeInt,
        notice: PositiveInt,
        options: list[str],
    ) -> None:
        super().__init__(minutes, requeues, notice)
        self.partition, self.gpus, self.cpus, self.memory, self.options = partition, gpus, cpus, memory, options

    @override
    def errors(self) -> list[ErrorDetail]:
        missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
        if missing:
            message = f"there is no {missing[0]} on this machine; submit from a login node of the cluster"
            return [ErrorDetail("launch=slurm", message)]
        return super().errors()

    @override
    def executor(self, folder: Path, name: str) -> Any:
        import submitit

        options = dict(option.lstrip("-").partition("=")[::2] for option in self.options)
        parameters = {
            "partition": self.partition,
            "gpus_per_node": self.gpus or None,
            "mem": None if self.memory is None else f"{math.ceil(self.memory * 1024)}MB",
        }
        executor = submitit.SlurmExecutor(folder, max_num_timeout=self.requeues)
        executor.update_parameters(
            job_name=name,
            time=math.ceil(self.minutes),
            cpus_per_task=self.cpus,
            signal_delay_s=self.notice,
            additional_parameters={key: value or True for key, value in options.items()},
            **{key: value for key, value in parameters.items() if value is not None},
        )
        return executor


class Local(Launcher):
    """Jobs on this machine, without a cluster."""

    @override
    def executor(self, folder: Path, name: str) -> Any:
        import submitit

        executor = submitit.LocalExecutor(folder, max_num_timeout=self.requeues)
        executor.update_parameters(timeout_min=self.minutes, signal_delay_s=self.notice)
        return executor


class ClusterJob:
    """What a job runs: processes of workers, which a pre-emption or the time limit stops with their states saved.

    Args:
        commands: the command lines of the workers, without the program.
        requeues: how often the job may be queued again.
    """

    def __init__(self, commands: list[list[str]], requeues: int) -> None:
        self.commands, self.requeues = commands, requeues
        self._signal: int | None = None

    def __call__(self) -> None:
        """Waits for the workers; when submitit announces the end of the job, stops them and lets submitit requeue it.

        Raises:
            RunError: a worker ended with an error.
        """
        from submitit.core.job_environment import JobEnvironment

        warning = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
        requeue = signal.signal(warning, signal.SIG_IGN)  # the cluster may send it to the workers, too
        processes = [self._start(command) for command in self.commands]
        signal.signal(warning, self._note)
        try:
            while self._signal is None and any(process.poll() is None for process in processes):
                time.sleep(POLL_S)
            if self._signal is not None:
                for process in processes:
                    process.terminate()
        finally:
            for process in processes:
                process.communicate()
        if self._signal is not None and callable(requeue):
            requeue(self._signal, None)
        if codes := [process.returncode for process in processes if process.returncode]:
            raise RunError(f"a worker ended with code {codes[0]}")

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "vae_train", *command], stdin=subprocess.PIPE)

    def _note(self, number: int, _: object) -> None:
        self._signal = number

    def checkpoint(self) -> Any:
        """What submitit runs when the job is queued again; None if it has been queued often enough."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(ClusterJob(self.commands, self.requeues - 1)) if self.requeues else None
