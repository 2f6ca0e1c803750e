"""Sweeps with several worker processes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

import vae_train
from tests.commandline import TINY, Vae, rows, start, wait_for
from vae_train.runs.config import Config
from vae_train.runs.pool import MAX_DEATHS, Pool, WorkerOptions
from vae_train.runs.sweep_display import SweepDisplay
from vae_train.runs.sweep_file import SWEEPS, SweepJob, add_jobs, read_jobs
from vae_train.runs.worker import DEFAULT_POLICY, Take, work
from vae_train.util.locks import is_locked, locked

SMALL = (*TINY[1:], "threads=1", "trainer.checkpoint_seconds=0.1", "trainer.sample_every=1000")
CONFIG = Config({"model": {}, "data": {}})


def statuses(name: str) -> list[str]:
    return [job.status(SWEEPS / name) for job in read_jobs(SWEEPS / name)]


def weights(folder: Path) -> bytes:
    return b"".join(t.numpy().tobytes() for t in vae_train.load(folder).model.state_dict().values())


def wait_until(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def two_jobs() -> Path:
    """A sweep with two jobs, whose configurations nobody reads."""
    sweep = SWEEPS / "s"
    sweep.mkdir(parents=True)
    add_jobs(sweep, {SweepJob(f"key {n}", "", (f"seed={n}",), (f"seed={n}",)): CONFIG for n in (1, 2)})
    return sweep


def test_a_worker_joins_in_and_ends_when_nothing_is_left(vae: Vae) -> None:
    vae.train("-m", "seed=1", "sweep=s")
    (config,) = map(Config.read, (SWEEPS / "s/jobs").iterdir())
    add_jobs(SWEEPS / "s", {SweepJob("other", "", ("seed=2",), ()): config.with_values({"seed": 2})})
    answer = vae("worker", "sweep=s", "threads=1")
    assert answer.code == 0, answer.err
    assert "[2/2] seed=2" in answer.out
    assert "s: nothing left for this worker; 2 of 2 done, 0 failed here" in answer.out
    assert statuses("s") == ["done", "done"]
    again = vae("worker", "sweep=s")
    assert "[" not in again.out
    assert again.code == 0


def test_wrong_commands_of_workers(vae: Vae) -> None:
    (line,) = vae("worker", "sweep=none").errors()
    assert line.strip() == "sweep=none  no such sweep below outputs/sweeps; create it with vae train -m"
    (line,) = vae.train("workers=2").errors()
    assert line.strip() == "workers=2  only applies to multirun; add -m"
    assert vae.train("-m", "seed=1,2", "workers=0").code == 2
    vae.train("-m", "seed=1,2", "sweep=s")
    (SWEEPS / "s/1-seed=2/summary.json").unlink()
    job = SWEEPS / "s/jobs/1-seed=2.yaml"
    config = Config.read(job)
    config.with_values({"data._target_": "os.system"}).write(job)
    answer = vae("worker", "sweep=s")
    assert answer.code == 2
    assert "1-seed=2.yaml: data._target_" in answer.err
    assert not (SWEEPS / "s/1-seed=2/summary.json").exists()


def test_jobs_that_are_added_meanwhile_are_trained_too() -> None:
    sweep, trained = two_jobs(), []

    def train(take: Take) -> None:
        trained.append((take.job.folder, take.number, take.of))
        add_jobs(sweep, {SweepJob("key 3", "", ("seed=3",), ()): CONFIG})

    work(sweep, train)
    assert trained == [("0-seed=1", 1, 2), ("1-seed=2", 2, 3), ("2-seed=3", 3, 3)]


def test_a_job_that_was_finished_before_its_lock_was_free_is_not_trained() -> None:
    sweep, trained = two_jobs(), []

    def train(take: Take) -> None:
        trained.append(take.job.folder)
        other = read_jobs(sweep)[1].files(sweep)
        other.folder.mkdir(exist_ok=True)
        other.summary_file.write_text('{"status": "done"}')

    work(sweep, train)
    assert trained == ["0-seed=1"]


def test_threads_and_devices_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    from vae_train.runs import pool

    monkeypatch.setattr(pool, "cores", lambda: 8)
    assert WorkerOptions(3, "cpu", None).settings(0) == ["device=cpu", "threads=2"]
    assert WorkerOptions(3, "cpu", 5, ("allow=mine",)).settings(0) == ["device=cpu", "threads=5", "allow=mine"]
    assert WorkerOptions(16, "cpu", None).settings(0) == ["device=cpu", "threads=1"]
    monkeypatch.setattr(pool.torch.cuda, "device_count", lambda: 2)
    assert [WorkerOptions(3, "auto", 1).settings(n)[0] for n in range(3)] == [
        "device=cuda:0", "device=cuda:1", "device=cuda:0",
    ]  # fmt: skip
    assert WorkerOptions(3, "cuda:1", 1).settings(0)[0] == "device=cuda:1"


def test_a_job_whose_workers_die_has_failed() -> None:
    sweep = two_jobs()
    pool, job = Pool(sweep, WorkerOptions(2, "cpu", 1), DEFAULT_POLICY), read_jobs(sweep)[0]
    job.files(sweep).folder.mkdir()
    for _ in range(MAX_DEATHS - 1):
        pool.count_death(job, "was killed by signal 9")
    assert job.status(sweep) == "not started"
    pool.count_death(job, "was killed by signal 9")
    assert json.loads(job.files(sweep).summary_file.read_text()) == {
        "status": "failed", "error": "its worker was killed by signal 9",
    }  # fmt: skip


def test_the_display_of_a_sweep(caplog: pytest.LogCaptureFixture) -> None:
    sweep, now = two_jobs(), [100.0]
    files = [job.files(sweep) for job in read_jobs(sweep)]
    with caplog.at_level("INFO", "vae_train"), SweepDisplay(sweep, 2, clock=lambda: now[0]) as display:
        for each in files:
            each.folder.mkdir()
        row = {"epoch": 3, "split": "valid", "elbo": -9.5, "step": 1}
        files[1].metrics_file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "elbo": -10.25}) + "\n{half")
        files[0].summary_file.write_text('{"status": "done", "best_elbo": -8.0, "seconds": 20}')
        with locked(files[1].lock_file):
            display.update()
            now[0] += 40
            files[1].metrics_file.write_text(files[1].metrics_file.read_text().replace("{half", "\n"))
        files[1].summary_file.write_text('{"status": "failed", "error": "no memory"}')
        display.update()
    assert [record.message for record in caplog.records] == [
        "done: seed=1 · best -8.00 · 20 s",
        "s: 1 of 2 done · 1 running (seed=2: epoch 3, best -9.50) · 10 s left",
        "failed: seed=2: no memory",
    ]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sweep_ends_with_its_first_failure_if_asked_to(vae: Vae, workers: int) -> None:
    jobs = ("-m", "optimizer=sgd", "lr=1e8,1e-3,2e-3,3e-3", "sweep=s", f"workers={workers}", "stop_on_failure=true")
    answer = vae("train", "epochs=3000", *SMALL, *jobs)
    assert answer.code == 1
    assert "since stop_on_failure=true" in answer.out
    assert statuses("s")[0] == "failed"
    assert "done" not in statuses("s")
    assert statuses("s")[2:] == ["not started"] * 2


@pytest.mark.parametrize("command", [["out=outputs/r"], ["-m", "seed=1,2", "sweep=s"]], ids=["run", "sweep"])
def test_a_time_limit_saves_the_state(vae: Vae, command: list[str]) -> None:
    answer = vae("train", "epochs=100000", *SMALL, "max_hours=0.0005", *command)
    assert answer.code == 128 + signal.SIGTERM
    assert "stopping, since max_hours=0.0005 is over" in answer.out
    folder = Path("outputs/r") if "-m" not in command else SWEEPS / "s/0-seed=1"
    assert (folder / "checkpoints/last.pt").exists()
    again = f"vae train resume={folder}" if "-m" not in command else "vae train -m sweep=s"
    assert again in answer.err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_a_killed_sweep_of_several_workers_goes_on_bit_for_bit(vae: Vae, victim: str) -> None:
    command = ("train", "epochs=40", *SMALL, "-m", "beta=1,2", "seed=1,2,3")
    assert vae(*command, "sweep=whole").code == 0
    process = start(*command, "sweep=mine", "workers=2", folder=Path())
    wait_for(SWEEPS / "mine/1-beta=1-seed=2/metrics.jsonl", '"epoch": 5')
    if victim == "parent":
        process.kill()
        process.communicate()
        lock_files = [job.files(SWEEPS / "mine").lock_file for job in read_jobs(SWEEPS / "mine")]
        wait_until(lambda: not any(map(is_locked, lock_files)))
        assert statuses("mine").count("stopped") == 2
        answer = vae(*command, "sweep=mine", "workers=2")
        assert answer.code == 0, answer.err
        assert "2 to resume" in answer.out
    else:
        holder = json.loads((SWEEPS / "mine/1-beta=1-seed=2/.lock").read_text())
        os.kill(holder["process"], signal.SIGKILL)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "was killed by signal 9 while it trained 1-beta=1-seed=2; see" in out
    assert statuses("mine") == ["done"] * 6
    for job in read_jobs(SWEEPS / "whole"):
        mine, whole = (SWEEPS / name / job.folder for name in ("mine", "whole"))
        assert weights(mine) == weights(whole)
        assert rows(mine) == rows(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_workers(vae: Vae, number: int) -> None:
    process = start("train", "epochs=100000", *SMALL, "-m", "seed=1,2,3", "sweep=mine", "workers=2", folder=Path())
    for name in ("0-seed=1", "1-seed=2"):
        wait_for(SWEEPS / f"mine/{name}/metrics.jsonl", '"epoch": 3')
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "interrupted; checkpoints saved. Go on with: vae train -m sweep=mine" in err
    assert statuses("mine") == ["stopped", "stopped", "not started"]
    assert all((SWEEPS / "mine" / name / "checkpoints/last.pt").exists() for name in ("0-seed=1", "1-seed=2"))
