from __future__ import annotations

import csv
import json
from pathlib import Path

from tests.commandline import BRIEF, TINY, Vae
from vae_train.runs.sweep import run_sweep


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
    assert answer.out.count("   best") == 1
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


def test_a_job_that_fails_before_it_has_a_folder_is_in_the_table(tmp_path: Path, caplog) -> None:
    def train(number: int, folder: Path) -> None:
        raise RuntimeError("no memory")

    with caplog.at_level("INFO", "vae_train"):
        assert run_sweep("none", [("seed=1",), ("seed=2",)], train) == 2
    assert "0 of 2 jobs done" in caplog.text
    assert "no memory" in Path("outputs/sweeps/none/1-seed=2/train.log").read_text()


def test_a_sweep_does_not_take_another_ones_folder(vae: Vae) -> None:
    assert vae.train("-m", "seed=1,2", "sweep=mine").code == 0
    (line,) = vae.train("-m", "seed=1,2", "sweep=mine").errors()
    assert "already exists" in line


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
