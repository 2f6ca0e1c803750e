"""What only a process of its own can show: signals, start-up, two runs at once, an installed wheel."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commandline import TINY, Vae, rows, start, wait_for
from vae_train import load

LONG = (*TINY[1:], "epochs=30", "trainer.log_every=7", "learner.ema=0.9", "threads=1")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_resuming_changes_nothing(tmp_path: Path, vae: Vae, number: int, code: int) -> None:
    import torch

    process = start("train", *LONG, "out=stopped", folder=tmp_path)
    wait_for(tmp_path / "stopped" / "metrics.jsonl", '"epoch": 3')
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "saved. Resume with: vae train resume=stopped" in err
    assert "Traceback" not in err
    assert rows(tmp_path / "stopped")[-1]["epoch"] < 30
    assert vae("train", "resume=stopped").code == 0
    assert vae("train", *LONG, "out=whole").code == 0
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    for checkpoint in ("last", "best"):
        a, b = (load(name, checkpoint).model.state_dict() for name in ("stopped", "whole"))
        assert all(torch.equal(a[key], b[key]) for key in a)


def killed(folder: Path, *arguments: str) -> None:
    """A run that is killed once its fifth epoch has begun to be written."""
    process = start("train", *LONG, *arguments, "out=killed", folder=folder)
    wait_for(folder / "killed" / "metrics.jsonl", '"epoch": 5')
    process.kill()
    process.communicate()


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path, vae: Vae) -> None:
    killed(tmp_path)
    assert vae("train", "resume=killed").code == 0
    vae("train", *LONG, "out=whole")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_best_state_where_that_is_the_only_one(tmp_path: Path, vae: Vae) -> None:
    killed(tmp_path, "trainer.checkpoint_every=30")
    assert not (tmp_path / "killed/checkpoints/last.pt").exists()
    refused = vae("eval", "run=killed", "checkpoint=last")
    assert (refused.code, "use checkpoint=best" in refused.err) == (2, True)
    assert vae("eval", "run=killed", "latents=false").code == 0
    assert vae("train", "resume=killed").code == 0
    vae("train", *LONG, "out=whole")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


@pytest.mark.slow
def test_output_that_cannot_be_shown_or_written_stops_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vae_train", "train", *TINY, "threads=1"]
    plain = subprocess.run([*command, "out=ascii"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert "vae train ? digits-mlp ? 8x8x1" in plain.stdout
    with open("/dev/full", "w") as full:
        lost = subprocess.run(
            [*command, "out=full"], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE
        )
    assert lost.stderr == b""
    assert rows(tmp_path / "ascii") == rows(tmp_path / "full")


def test_what_pytorch_would_crash_on_is_said_before(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    for script, message in (
        (f"cd {gone}; rmdir {gone}", "the current folder no longer exists"),
        ("ulimit -v 1000000", "ulimit -v is below the 4 GiB"),
    ):
        command = f"{script}; exec {sys.executable} -m vae_train train"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert message in done.stderr


def test_a_time_zone_that_is_none_stops_nothing(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC+99")
        time.tzset()
        assert vae.train("data=digits", "out=run").code == 0
    time.tzset()


def test_a_signal_ends_a_sweep_with_its_table(tmp_path: Path) -> None:
    process = start("train", *LONG, "-m", "seed=1,2", "sweep=s", folder=tmp_path)
    wait_for(tmp_path / "outputs/sweeps/s/0-seed=1/metrics.jsonl", '"epoch": 2')
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "0 of 2 jobs done" in out
    table = (tmp_path / "outputs/sweeps/s/sweep.csv").read_text()
    assert "stopped" in table
    assert "not started" in table


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    from datetime import datetime

    from vae_train.runs.config import Config
    from vae_train.runs.run import Run

    now, cfg = datetime(2026, 1, 2, 3, 4, 5), Config({"name": "x"})
    folders = {Run.create(None, cfg, now).folder for _ in range(5)}
    assert len(folders) == 5


def test_help_and_completion_do_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys, os\nfrom vae_train.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "assert run(['train', '--help']) == 0\n"
        "assert 'hydra' not in sys.modules\n"
        "os.environ.update(COMP_LINE='vae train mod', COMP_POINT='13')\n"
        "run(['-sc', 'query=bash'])\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-5:] == ["model.", "model/likelihood=", "model/posterior=", "model/prior=", "model="]


@pytest.mark.parametrize("command", ["train", "eval", "sample", "fit-prior", "reproduce"])
def test_every_command_answers_hydras_flags(vae: Vae, command: str) -> None:
    assert vae(command, "allow=x", "--info").code == 0


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_folder(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    quiet = {"check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", root], **quiet)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--target", site, wheel], **quiet)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = "import vae_train, pathlib; print(pathlib.Path(vae_train.__file__).parent)"
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
    where = subprocess.run([sys.executable, "-c", code], cwd=empty, env=environment, **quiet).stdout.strip()
    assert where == str(site / "vae_train")
    for arguments in (["train", *TINY], ["eval", "run=last"], ["sample", "run=last"]):
        done = subprocess.run([sys.executable, "-m", "vae_train", *arguments], cwd=empty, env=environment, **quiet)
        assert done.returncode == 0


@pytest.mark.slow
def test_a_file_that_cannot_grow_is_named_in_one_line(tmp_path: Path) -> None:
    """The limit acts as a full disk does, also in the thread in which TensorBoard writes."""
    limit = (resource.RLIMIT_FSIZE, (20_000, 20_000))
    process = start(
        "train", "steps=40", f"out={tmp_path / 'r'}", folder=tmp_path, preexec_fn=lambda: resource.setrlimit(*limit)
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("vae train: ")
    assert f"{tmp_path / 'r'}" in errors.splitlines()[-1]
    assert errors.splitlines()[-1].endswith("File too large")
