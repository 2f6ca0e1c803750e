"""Workers of a sweep as jobs of a cluster."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.commandline import TINY, Vae
from vae_train.runs.cluster import ClusterJob
from vae_train.runs.sweep_file import SWEEPS, read_jobs
from vae_train.util.errors import RunError

pytest.importorskip("submitit", reason="needs the extra [cluster]")

SBATCH = """#!/bin/sh
cp "$1" {folder}/script
echo Submitted batch job 17
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an sbatch that keeps the script which it is given."""
    for name, text in (("sbatch", SBATCH.format(folder=tmp_path)), ("srun", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def statuses(name: str) -> list[str]:
    return [job.status(SWEEPS / name) for job in read_jobs(SWEEPS / name)]


def test_jobs_are_submitted_to_slurm(vae: Vae, slurm: Path) -> None:
    options = ("launch=slurm", "launch.partition=short", "launch.minutes=30", "launch.gpus=1", "launch.memory=6")
    answer = vae.train("-m", "seed=1,2", "sweep=s", "workers=3", *options, "launch.options=['account=me',exclusive]")
    assert answer.code == 0, answer.err
    assert "submitted 3 jobs: 17_0, 17_1, 17_2; logs: outputs/sweeps/s/cluster" in answer.out
    script = (slurm / "script").read_text()
    for option in (
        *("partition=short", "time=30", "gpus-per-node=1", "mem=6144MB", "cpus-per-task=2", "array=0-2%3"),
        *("account=me", "exclusive", "signal=USR2@90", "job-name=vae-s"),
    ):
        assert f"#SBATCH --{option}\n" in script, option
    assert statuses("s") == ["not started", "not started"]
    assert not any("launch" in override for job in read_jobs(SWEEPS / "s") for override in job.overrides)


def test_wrong_submissions(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = vae.train("launch=local").errors()
    assert line.strip() == "launch=local  only applies to multirun; add -m"
    monkeypatch.setenv("PATH", "")
    (line,) = vae.train("-m", "seed=1,2", "launch=slurm").errors()
    assert line.strip() == "launch=slurm  there is no sbatch on this machine; submit from a login node of the cluster"
    monkeypatch.setitem(sys.modules, "submitit", None)
    (line,) = vae.train("-m", "seed=1,2", "launch=local").errors()
    assert 'needs the package submitit; pip install "vae_train[cluster]"' in line
    assert not Path("outputs").exists()


def test_a_job_that_slurm_rejects_is_one_line(vae: Vae, slurm: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2\nexit 1\n")
    answer = vae.train("-m", "seed=1,2", "sweep=s", "launch=slurm")
    assert answer.code == 1
    assert answer.err.splitlines()[-1] == "vae train: the jobs could not be submitted: invalid partition"


def test_an_announced_end_stops_the_workers_before_the_job_is_requeued(tmp_path: Path) -> None:
    worker = tmp_path / "vae_train.py"  # stands for the package in the processes of the job
    ended = tmp_path / "ended"
    worker.write_text(
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(ended)!r}).touch(), sys.exit(143)))\n"
        f"pathlib.Path({str(tmp_path / 'started')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    requeued = []
    before = signal.signal(signal.SIGUSR2, lambda *_: requeued.append(ended.exists()))
    if (pid := os.fork()) == 0:
        while not (tmp_path / "started").exists():
            time.sleep(0.05)
        os.kill(os.getppid(), signal.SIGUSR2)
        os._exit(0)
    try:
        os.environ["PYTHONPATH"], path = str(tmp_path), os.environ.get("PYTHONPATH", "")
        with pytest.raises(RunError, match="a worker ended with code 143"):
            ClusterJob([["worker"]], 1)()
    finally:
        os.environ["PYTHONPATH"] = path
        signal.signal(signal.SIGUSR2, before)
        os.waitpid(pid, 0)
    assert requeued == [True]


def test_a_job_is_requeued_as_often_as_allowed() -> None:
    job = ClusterJob([["worker"]], 2)
    for left in (1, 0):
        job = job.checkpoint().function
        assert job.requeues == left
    assert job.checkpoint() is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_three_local_jobs_are_requeued_at_their_time_limit(vae: Vae) -> None:
    sweep = SWEEPS / "s"
    length = ("epochs=100000", *TINY[1:], "threads=1", "trainer.sample_every=1000000")
    limit = ("launch=local", "launch.minutes=0.8", "launch.notice=25", "launch.requeues=1")
    answer = vae("train", *length, "-m", "seed=1,2,3,4", "sweep=s", "workers=3", *limit)
    assert answer.code == 0, answer.err
    results = [f"{number}_0_result.pkl" for number in re.findall(r"submitted 3 jobs: (.*);", answer.out)[0].split(", ")]
    end = time.monotonic() + 300
    while not all((sweep / "cluster" / name).exists() for name in results):
        assert time.monotonic() < end
        time.sleep(0.5)
    logs = [path.read_text() for path in sweep.glob("cluster/*_log.out")]
    assert sum("Requeued job" in text for text in logs) == 3
    assert sum("resuming after step" in text for text in logs) == 3
    assert sum("Job not requeued" in text for text in logs) == 3
    assert statuses("s") == ["stopped", "stopped", "stopped", "not started"]
