from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import vae_train
from tests.commandline import BRIEF, TINY, Vae, rows, start, wait_for
from vae_train.runs import worker
from vae_train.runs.config import Config
from vae_train.runs.sweep_file import SweepJob, add_jobs, read_jobs
from vae_train.runs.sweep_table import report
from vae_train.runs.worker import Take, work
from vae_train.util.locks import locked

LONG = ("epochs=8", *TINY[1:], "threads=1", "trainer.checkpoint_every=2")


def test_a_sweep_ends_with_its_table(vae: Vae) -> None:
    answer = vae.train("-m", "beta=1,2", "seed=1,2", "sweep=first")
    assert answer.code == 0, answer.err
    folder = Path("outputs/sweeps/first")
    with (folder / "sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["beta"], row["seed"], row["status"]) for row in table] == [
        ("1", "1", "done"), ("1", "2", "done"), ("2", "1", "done"), ("2", "2", "done"),
    ]  # fmt: skip
    for number, row in enumerate(table):
        summary = json.loads((folder / f"{number}-beta={row['beta']}-seed={row['seed']}" / "summary.json").read_text())
        assert float(row["best_elbo"]) == summary["best_elbo"]
        assert row["folder"] == str(folder / f"{number}-beta={row['beta']}-seed={row['seed']}")
    assert "no best: beta varies" in answer.out
    assert not Path("multirun.yaml").exists()
    assert not Path("multirun").exists()


def test_a_failing_job_does_not_stop_the_others(vae: Vae) -> None:
    answer = vae("train", *TINY, "-m", "optimizer=sgd", "lr=1e8,1e-3", "sweep=two")
    assert answer.code == 1
    assert "1 of 2 jobs done" in answer.out
    folders = [next(Path("outputs/sweeps/two").glob(f"{n}-lr=*")) for n in (0, 1)]
    statuses = [json.loads((folder / "summary.json").read_text())["status"] for folder in folders]
    assert statuses == ["failed", "done"]
    log = (folders[0] / "train.log").read_text()
    assert "Traceback" in log
    assert "NaN" in log


def test_a_job_that_fails_before_it_has_a_folder_is_in_the_table(caplog: pytest.LogCaptureFixture) -> None:
    def train(_: Take) -> None:
        raise RuntimeError("no memory")

    sweep = Path("outputs/sweeps/none")
    sweep.mkdir(parents=True)
    config = Config({"model": {}, "data": {}})
    add_jobs(sweep, {SweepJob(f"key {n}", "", (f"seed={n}",), (f"seed={n}",)): config for n in (1, 2)})
    with caplog.at_level("INFO", "vae_train"):
        errors = work(sweep, train)
        report(sweep, read_jobs(sweep), errors)
    assert errors == dict.fromkeys(("0-seed=1", "1-seed=2"), "no memory")
    assert "0 of 2 jobs done" in caplog.text
    assert "no memory" in (sweep / "1-seed=2/train.log").read_text()


def test_hyperparameters_reach_tensorboard(vae: Vae) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    answer = vae("train", *TINY[:-1], "-m", "beta=1,2", "sweep=board")
    assert answer.code == 0, answer.err
    for number, beta in ((0, 1.0), (1, 2.0)):

        def tags(name: str, folder: Path) -> dict:
            events = EventAccumulator(str(folder / "tb" / name))
            events.Reload()
            return events.Tags()

        folder = Path(f"outputs/sweeps/board/{number}-beta={beta:g}")
        assert {"bound/elbo", "bound/rate"} <= set(tags("valid", folder)["scalars"])
        assert {"bound/elbo", "optimization/loss"} <= set(tags("train", folder)["scalars"])
        assert {"images/samples", "images/reconstructions"} <= set(tags("train", folder)["images"])
        events = EventAccumulator(str(folder / "tb/best"))
        events.Reload()
        start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        values = HParamsPluginData.FromString(start).session_start_info.hparams
        assert values["beta"].number_value == beta
        assert values["objective"].string_value == "ELBO"
        assert not {"objective.beta", "optimizer.lr", "latent_shape", "model.latent_shape"} & set(
            values
        )  # they repeat settings of the top


def test_many_runs_are_evaluated_with_m(vae: Vae) -> None:
    vae.train("-m", "seed=1,2", "sweep=s")
    answer = vae("eval", "-m", "run=s/0,s/1", *BRIEF)
    assert answer.code == 0, answer.err
    assert all(Path(f"outputs/sweeps/s/{n}/eval/test.json").exists() for n in ("0-seed=1", "1-seed=2"))
    assert not Path("multirun.yaml").exists()


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> bytes:
    return b"".join(t.numpy().tobytes() for t in vae_train.load(folder).model.state_dict().values())


def test_the_same_command_trains_nothing_that_is_done(vae: Vae) -> None:
    folder = Path("outputs/sweeps/mine")
    assert vae.train("-m", "seed=1,2", "sweep=mine").code == 0
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    answer = vae.train("-m", "seed=1,2", "sweep=mine")
    assert answer.code == 0
    assert "mine: 2 of 2 done" in answer.out
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    assert "2 of 2 jobs done" in vae("train", "-m", "sweep=mine").out


def test_new_values_are_added_to_a_sweep(vae: Vae) -> None:
    folder = Path("outputs/sweeps/mine")
    vae.train("-m", "seed=1,2", "sweep=mine")
    answer = vae.train("-m", "seed=2,3", "sweep=mine")
    assert answer.code == 0, answer.err
    assert "mine: 2 of 3 done, 1 to go" in answer.out
    assert vae.train("-m", "seed=3", "beta=4", "sweep=mine").code == 0
    assert [(row["seed"], row.get("beta"), row["status"]) for row in rows_of(folder)] == [
        ("1", "1.0", "done"), ("2", "1.0", "done"), ("3", "1.0", "done"), ("3", "4", "done"),
    ]  # fmt: skip
    names = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
    assert names == ["0-seed=1", "1-seed=2", "2-seed=3", "3-seed=3-beta=4"]


def test_settings_that_change_no_number_are_the_same_job(vae: Vae) -> None:
    vae.train("-m", "seed=1,2", "sweep=mine")
    assert "mine: 2 of 2 done" in vae.train("-m", "seed=1,2", "sweep=mine", "threads=1", "device=cpu", "name=x").out


@pytest.mark.parametrize(
    "again",
    [pytest.param(["seed=1,2,3", *LONG], id="same command", marks=pytest.mark.slow), pytest.param([], id="name alone")],
)
def test_a_killed_sweep_goes_on_bit_for_bit(vae: Vae, again: list[str]) -> None:
    folder, whole = (Path("outputs/sweeps", name) for name in ("mine", "whole"))
    vae("train", *LONG, "-m", "seed=1,2,3", "sweep=whole")
    process = start("train", *LONG, "-m", "seed=1,2,3", "sweep=mine", folder=Path())
    wait_for(folder / "1-seed=2/metrics.jsonl", '"epoch": 3')
    process.kill()
    process.communicate()
    answer = vae("train", "-m", *again, "sweep=mine")
    assert answer.code == 0, answer.err
    assert "mine: 1 of 3 done, 1 to resume, 1 to go" in answer.out
    for name in ("0-seed=1", "1-seed=2", "2-seed=3"):
        assert weights(folder / name) == weights(whole / name)
        assert rows(folder / name) == rows(whole / name)


def test_failed_jobs_are_only_resumed_with_retry(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", fail)
        assert vae.train("-m", "seed=1,2", "sweep=mine").code == 1
    answer = vae.train("-m", "seed=1,2", "sweep=mine")
    assert answer.code == 1
    assert "mine: 0 of 2 done, 2 failed (retry=true resumes them)" in answer.out
    answer = vae("train", "-m", "sweep=mine", "retry=true")
    assert answer.code == 0, answer.err
    assert [row["status"] for row in rows_of(Path("outputs/sweeps/mine"))] == ["done", "done"]
    assert vae("train", "-m", "sweep=mine").code == 0


def test_names_of_sweeps_that_cannot_go_on(vae: Vae) -> None:
    (line,) = vae("train", "-m", "sweep=unknown", "threads=1").errors()
    assert line.strip() == "sweep=unknown  no such sweep; a new one needs settings, such as beta=1,2,4"
    Path("outputs/sweeps/other").mkdir(parents=True)
    (line,) = vae.train("-m", "seed=1,2", "sweep=other").errors()
    assert "already exists and is not a sweep that can go on" in line
    (line,) = vae.train("retry=true").errors()
    assert line.strip() == "retry=true  only applies to multirun; add -m"
    for damage in ("", "{}", '{"jobs": [{"key": "a", "folder": "../x", "overrides": [], "composed": []}]}'):
        Path("outputs/sweeps/other/sweep.json").write_text(damage)
        answer = vae.train("-m", "seed=1,2", "sweep=other")
        assert answer.code in (1, 2)
        assert "sweep.json" in answer.err
        assert len(answer.err.strip().splitlines()) <= 2
    assert [path.name for path in Path("outputs/sweeps/other").iterdir()] == ["sweep.json"]


@pytest.mark.parametrize("setting", ["threads=1,2", "execution=eager,compile", "logger=none,[none]"])
def test_jobs_that_only_differ_in_what_changes_no_number_are_trained_once(vae: Vae, setting: str) -> None:
    answer = vae("train", *TINY[:-1], "-m", "beta=1,2", setting, "sweep=mine")
    assert answer.code == 0, answer.err
    name = setting.partition("=")[0]
    line = f"jobs that only differ in {name} are trained once, since that changes no number"
    assert answer.out.count(line) == 1
    assert "2 of 2 jobs done" in answer.out


def test_a_job_that_another_process_trains_is_left_to_it(vae: Vae) -> None:
    vae.train("-m", "seed=1,2", "sweep=mine")
    folder = Path("outputs/sweeps/mine/2-seed=3")
    folder.mkdir()
    with locked(folder / ".lock"):
        answer = vae.train("-m", "seed=1,2,3,4", "sweep=mine")
    assert answer.code == 0, answer.err
    assert "1 job is being trained by other commands" in answer.out
    assert [row["status"] for row in rows_of(folder.parent)] == ["done", "done", "not started", "done"]
    assert vae("train", "-m", "sweep=mine").code == 0
    assert (folder / "summary.json").exists()
