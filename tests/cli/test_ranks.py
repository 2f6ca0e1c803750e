"""Command lines in several processes, which torchrun, srun or environment variables make ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commandline import TINY, rows
from tests.training.ranks import free_port
from vae_train.cli.main import run

LONG = ("train", *TINY[1:], "steps=400", "threads=1", "trainer.checkpoint_seconds=0.2", "trainer.log_every=1")


def ranks(size: int, *arguments: str, **variables: str) -> list[subprocess.Popen[str]]:
    """`vae` in `size` processes on this machine, without a launcher."""
    started, port = [], str(free_port())
    for rank in range(size):
        place = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"} | place
        command = [sys.executable, "-m", "vae_train", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment | variables, stdout=pipe, stderr=pipe, text=True))
    return started


def ended(started: list[subprocess.Popen[str]], seconds: float = 60) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of every process."""
    try:
        answers = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *answer) for process, answer in zip(started, answers, strict=True)]


def wait_for_checkpoint(folder: str) -> None:
    end = time.monotonic() + 90
    while not (Path(folder) / "checkpoints" / "last.pt").exists():
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval", "run=last"), "vae: eval runs in one process; start it without torchrun or srun"),
        (("train", "-m", "beta=1,2"), "vae: -m does not work with several ranks; train one job at a time"),
        ((), "vae: this runs in one process; start it without torchrun or srun"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_what_needs_one_process_is_refused_once(arguments, message, rank, monkeypatch, capfd):
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert run(list(arguments)) == 2
    assert capfd.readouterr().err.strip() == (message if rank == 0 else "")


def test_slurm_without_srun_is_refused(monkeypatch, capfd):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    assert run(["train", "distributed=slurm"]) == 2
    assert capfd.readouterr().err == "vae: distributed=slurm: SLURM_PROCID is not set; start vae train with srun\n"


def test_one_process_of_torchrun_trains_as_without_it(vae, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert vae.train("out=run").code == 0
    assert "ranks" not in Path("run/train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_all_with_one_line_and_one_rank_goes_on(victim, tmp_path):
    started = ranks(3, *LONG, "out=run")
    wait_for_checkpoint("run")
    started[victim].kill()
    answers = ended(started)
    assert answers[victim][0] == -signal.SIGKILL
    others = [answer for rank, answer in enumerate(answers) if rank != victim]
    assert [code for code, *_ in others] == [1, 1]
    errors = "".join(err for *_, err in others)
    line = "vae train: another rank ended or does not answer; resume with: vae train resume=run"
    assert errors.splitlines() == [line]
    assert run(["train", "resume=run"]) == 0
    assert json.loads(Path("run/summary.json").read_text())["status"] == "done"
    assert rows(Path("run"))[-1]["step"] == 400


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_and_saves(tmp_path):
    started = ranks(2, *LONG, "out=run")
    wait_for_checkpoint("run")
    started[1].terminate()
    (first, _, err), second = ended(started)
    assert (first, second) == (143, (143, "", ""))
    assert "checkpoint saved. Resume with: vae train resume=run" in err
    assert json.loads(Path("run/summary.json").read_text())["status"] == "stopped"


@pytest.mark.slow
def test_torchrun_trains_on_two_ranks_and_a_wrong_setting_is_one_message(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    launch += ["-m", "vae_train", "train", *TINY]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run([*launch, "out=run"], env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("2 ranks of cpu, 1 thread") == 1
    assert answer.stdout.count("next: vae eval run=run") == 1
    answer = subprocess.run([*launch, "out=run"], env=environment, capture_output=True, text=True, check=False)
    assert answer.stderr.count("vae train: 1 error; nothing was written") == 1
    assert answer.stderr.count("exitcode  : 2") == 2


@pytest.mark.slow
def test_srun_trains_on_two_ranks(tmp_path):
    started = []
    for rank in range(2):
        slurm = {"PROCID": rank, "NTASKS": 2, "LOCALID": rank, "NODEID": 0, "JOB_ID": os.getpid()}
        slurm |= {"STEP_NODELIST": "localhost", "STEP_TASKS_PER_NODE": 2}
        variables = {f"SLURM_{name}": str(value) for name, value in slurm.items()}
        environment = os.environ | variables | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-m", "vae_train", "train", *TINY, "distributed=slurm", "out=run"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    (first, out, err), second = ended(started, 90)
    assert (first, second) == (0, (0, "", "")), err
    assert "2 ranks of cpu" in out
