"""`vae train -m search=…`: what is refused before anything starts, and searches with tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.pruners import ThresholdPruner

from tests.commandline import TINY, Vae
from vae_train.cli.commands import train as train_module
from vae_train.cli.commands import worker as worker_module
from vae_train.cli.commands.train import Settings
from vae_train.cli.overrides import compose_jobs
from vae_train.data.session import DataSession
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.search.history import read_history
from vae_train.runs.search.plan import NewSearch, write_search
from vae_train.runs.search.space import Choices, Interval
from vae_train.runs.sweep_file import SweepJob, add_jobs
from vae_train.util.errors import ErrorDetail
from vae_train.util.files import SavedPath

ERRORS = {
    "beta=interval(0.5,8)": ["is an interval, from which a search chooses: add -m search=tpe trials=20"],
    "-m beta=interval(0.5,8)": ["is an interval, from which a search chooses: add search=tpe trials=20"],
    "search=tpe beta=interval(0.5,8)": ["search=tpe ", "only applies to multirun; add -m"],
    "seeds=3": ["only applies to multirun; add -m"],
    "-m search=tpe beta=interval(1,8) retry=true": ["retry=true ", "has no effect on a search"],
    "-m search=tpe": ["has nothing to choose; add a setting such as beta=interval(0.5,8)"],
    "-m search=tpee beta=interval(0.5,8)": ["no such search; did you mean tpe?"],
    "-m search=tpe,random beta=interval(0.5,8)": ["search=tpe,random ", "takes one value"],
    "-m search=tpe trials=5,6 beta=interval(0.5,8)": ["trials=5,6 ", "takes one value"],
    "-m beta=1,2 trials=20": ["trials=20 ", "has no effect without a search; add search=tpe"],
    "-m beta=1,2 prune=median": ["has no effect without a search"],
    "-m beta=1,2 search.metric=elbo": ["has no effect without a search"],
    "-m seed=1,2 seeds=3": ["seed=1,2 ", "and seeds= are mutually exclusive"],
    "-m search=tpe seed=1,2 lr=interval(1e-4,1e-2)": ["a search cannot choose seeds; use seeds=3"],
    "-m search=tpe beta=interval(8,0.5)": ["its first end, 8, must be below its second one, 0.5"],
    "-m search=tpe beta=interval(-1,8)": ["beta=-1 ", "must be at least 0"],
    "-m search=tpe beta=interval(0,1e400)": ["must be finite in float32"],
    "-m search=tpe latent_dim=interval(4.5,8)": ["latent_dim=4.5 ", "expected a whole number"],
    "-m search=tpe latent_dim=choice(4,none)": ["latent_dim=none ", "expected a whole number"],
    "-m search=tpe model=choice(mlp,conw)": ["model=conw ", "did you mean conv?"],
    "-m search=tpe lr=tag(log,interval(0,1e-2))": ["has the tag log, so both ends must be above 0"],
    "-m search=tpe lr=tag(lin,interval(0,1e-2))": ["has the unknown tag lin; the only one is log"],
    "-m search=tpe lr=tag(log,choice(1e-3,1e-2))": ["has the tag log, which only applies to an interval"],
    "-m search=tpe beta=interval(1,8) search.metric=rate,distortion": [
        "takes a list: search.metric=[rate,distortion]",
    ],
    "-m search=tpe beta=interval(1,8) search.metric=elbow": ["no such metric; did you mean elbo?"],
    "-m search=tpe beta=interval(1,8) search.metric=[elbo,elbo]": ["names a metric twice"],
    "-m search=tpe beta=interval(1,8) search.metric=[rate,distortion] prune=median": [
        "prune=median ",
        "needs a single metric; use prune=none, or search.metric=rate",
    ],
    "-m search=tpe beta=interval(1,8) search.metric=nll keep=none": ["keep=none ", "use keep=best"],
    "-m search=tpe beta=interval(1,8) search.metric=nll prune=median": ["needs a metric of validation; use prune=none"],
    "-m search=tpe beta=interval(1,8) search.storage=postgresql://a:b@host/db": ["has a password", "VAE_STORAGE"],
    "-m search=tpe beta=interval(1,8) search.storage=postgresql://a@127.0.0.1:1/db": ["cannot be reached: "],
    "-m search=tpe beta=interval(1,8) search.startup=0": ["search.startup", "must be at least 1"],
    "-m search=nsga2 beta=interval(1,8) search.population=1": ["population=1: a generation needs at least 2 trials"],
    "-m search=tpe beta=interval(1,8) data=arrays data.path=x.npy data.valid=0": [
        "needs validations, but the data has no such split"
    ],
}


@pytest.mark.parametrize("arguments", ERRORS)
def test_a_search_that_cannot_work_is_refused(vae: Vae, arguments: str) -> None:
    np.save("x.npy", np.random.default_rng(0).random((40, 8), np.float32))
    answer = vae("train", *arguments.split())
    lines = "\n".join(answer.errors())
    assert all(part in lines for part in ERRORS[arguments]), lines
    assert "secret" not in lines
    assert not Path("outputs").exists()


def space_of(*typed: str):
    jobs, errors = compose_jobs("train", ["search=tpe", *typed], Settings, multirun=True)
    assert errors == []
    assert all(job.space is None for job in jobs[1:])
    return jobs[0].space, [tuple(text for text in job.overrides if text != "search=tpe") for job in jobs]


def test_a_setting_of_whole_numbers_takes_whole_numbers() -> None:
    typed = (
        "latent_dim=interval(4,64)",
        "beta=interval(1,8)",
        "lr=tag(log,interval(1e-4,1e-2))",
        "batch_size=tag(log,interval(16,256))",
        "trainer.eval_every=interval(1,2)",
        "learner.clip_norm=int(interval(1,9))",
    )
    space, corners = space_of(*typed)
    assert space.axes == (
        Interval("latent_dim", 4, 64, whole=True),
        Interval("beta", 1, 8),
        Interval("lr", 1e-4, 1e-2, log=True),
        Interval("batch_size", 16, 256, log=True, whole=True),
        Interval("trainer.eval_every", 1, 2, whole=True),
        Interval("learner.clip_norm", 1, 9, whole=True),
    )
    assert len(corners) == 7  # 64 combinations are too many, so each second end is checked once


def test_every_combination_of_ends_and_choices_is_checked() -> None:
    space, corners = space_of(
        "model=choice(mlp,conv)", "beta=interval(0.5,8)", "latent_shape=choice([2],[3])", "seed=7"
    )
    assert space.axes == (
        Choices("model", ("mlp", "conv")),
        Interval("beta", 0.5, 8),
        Choices("latent_shape", ("[2]", "[3]")),
    )
    assert space.fixed == ("search=tpe", "seed=7")
    assert len(set(corners)) == len(corners) == 8
    assert ("model=conv", "seed=7", "beta=8", "latent_shape=[3]") in corners  # groups come first


def test_swept_values_are_choices_of_a_search() -> None:
    assert space_of("latent_dim=2,4,8")[0].axes == (Choices("latent_dim", ("2", "4", "8")),)
    assert space_of("latent_dim=range(2,8,3)")[0].axes == (Choices("latent_dim", ("2", "5")),)


def test_settings_of_a_chosen_group_can_be_searched() -> None:
    space, _ = space_of("objective=choice(free_bits)", "objective.free_bits=interval(0,1)")
    assert space.axes[1:] == (Interval("objective.free_bits", 0, 1),)


def test_seeds_train_every_combination_of_a_grid_several_times() -> None:
    jobs, errors = compose_jobs("train", ["beta=1,2", "seed=5", "seeds=2"], Settings, multirun=True)
    assert errors == []
    assert [(job.settings.beta, job.settings.seed) for job in jobs] == [(1, 5), (1, 6), (2, 5), (2, 6)]
    assert all(f"seed={job.settings.seed}" in job.overrides for job in jobs)
    jobs, _ = compose_jobs("train", ["beta=1,2", "seeds=3"], Settings, multirun=True)
    assert [job.settings.seed for job in jobs] == [0, 1, 2] * 2


SEARCH = ("-m", "beta=interval(0.5,8)", "sweep=s")
SWEEP = Path("outputs/sweeps/s")


def history():
    found = read_history(SWEEP)
    assert found is not None
    return found


def files(folder: Path = SWEEP) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}


def test_a_search_trains_its_trials_and_goes_on(vae: Vae) -> None:
    command = (*SEARCH, "search=tpe", "trials=2")
    answer = vae.train(*command)
    assert answer.code == 0, answer.err
    assert "[2/2] trial 1: beta=" in answer.out
    first = history()
    assert [trial.state for trial in first.trials] == ["complete"] * 2
    assert f"best: trial {first.best[0]}, elbo " in answer.out
    assert "best by validation ELBO: beta=" in answer.out
    charts = {path.stem.removeprefix("sweep-") for path in SWEEP.glob("*.png")}
    assert charts == {"curve", "history", "rate-distortion"}
    for trial in first.trials:
        (folder,) = trial.runs
        assert folder == f"{trial.number}-beta={trial.settings['beta']:g}"
        run = SWEEP / folder
        assert Config.read(run / "config.yaml")["beta"] == trial.settings["beta"]
        assert "trials" not in Config.read(run / "config.yaml")
        assert trial.values[0] == json.loads((run / "summary.json").read_text())["best_elbo"]
    before = files()
    answer = vae.train(*command)
    assert (answer.code, "[" in answer.out.partition("job")[0]) == (0, False)
    assert files().items() >= {path: time for path, time in before.items() if "beta" in str(path)}.items()
    assert vae("train", "-m", "sweep=s", "trials=3").code == 0
    assert [trial.settings for trial in history().trials[:2]] == [trial.settings for trial in first.trials]
    assert len(history().trials) == 3
    assert "s: nothing left for this worker; 3 of 3 done" in vae("worker", "sweep=s").out


def test_the_seeds_of_a_grid_are_jobs_like_others(vae: Vae) -> None:
    assert vae.train("-m", "beta=1,2", "seeds=2", "sweep=s").code == 0
    names = sorted(path.parent.name for path in SWEEP.glob("*/config.yaml"))
    assert names == ["0-beta=1-seed=0", "1-beta=1-seed=1", "2-beta=2-seed=0", "3-beta=2-seed=1"]
    assert "s: 4 of 4 done" in vae.train("-m", "beta=1,2", "seed=0,1", "sweep=s").out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["beta=interval(0.5,4)", "search=tpe"], "beta=interval(0.5,4)  differs from the search s; leave it as it was"),
        (["beta=interval(0.5,8)", "search=tpe", "lr=1"], "lr=1  differs from the search s; leave it as it was"),
        (["beta=interval(0.5,8)", "search=tpe", "search.metric=loss"], "search.metric=loss  differs from the search s"),
        (["beta=1,2"], "beta=1,2                         s is a search; repeat its whole command"),
    ],
)
def test_another_search_needs_another_name(vae: Vae, typed: list[str], message: str) -> None:
    SWEEP.mkdir(parents=True)
    overrides = ("beta=interval(0.5,8)", *TINY, "search=tpe", "trials=2")
    write_search(SWEEP, NewSearch(overrides, None))
    add_jobs(SWEEP, {})
    lines = " ".join(" ".join(vae.train("-m", *typed, "sweep=s").errors()).split())
    assert " ".join(message.split()) in lines


def test_a_worker_does_not_trust_the_search_that_it_finds(vae: Vae) -> None:
    SWEEP.mkdir(parents=True)
    overrides = ("search=tpe", "trials=1", "beta=interval(2,3)", "data=folder", "data.root='there'", *TINY)
    write_search(SWEEP, NewSearch(overrides, None))
    (line,) = vae("worker", "sweep=s", "retry=true").errors()
    assert line.strip() == "retry=true  has no effect on a search, in which a failed trial counts"
    (line,) = vae("worker", "sweep=s", "stop_on_failure=true").errors()
    assert line.strip() == "stop_on_failure=true  has no effect on a search, in which a failed trial counts"
    job = SimpleNamespace(builder=Builder(), session=DataSession())
    settings = worker_module.Settings("s", False, False, None, "cpu", 1, parent=False)
    first = worker_module._first_of_search(settings, job)
    assert isinstance(first.config.at("data.root"), SavedPath)
    assert (first.settings.device, first.config["threads"]) == ("cpu", 1)
    write_search(SWEEP, NewSearch((*overrides, "optimizer._target_=os.system", "allow=os"), None))
    lines = " ".join(vae("worker", "sweep=s").errors())
    assert "os.system" in lines
    assert not list(SWEEP.glob("*/config.yaml"))


def test_a_grid_does_not_become_a_search(vae: Vae) -> None:
    SWEEP.mkdir(parents=True)
    add_jobs(SWEEP, {SweepJob("key", "", ("beta=1",), ("beta=1",)): Config({"model": {}, "data": {}})})
    (line,) = vae.train(*SEARCH, "search=tpe").errors()
    assert line.strip() == "sweep=s  is a sweep without a search; choose another name"


def test_trials_are_pruned_while_they_train_and_the_seeds_count_together(vae: Vae, monkeypatch) -> None:
    monkeypatch.setattr("vae_train.runs.search.study.pruner", lambda name: ThresholdPruner(upper=0, n_warmup_steps=2))
    search = (*SEARCH, "search=random", "trials=2", "prune=median", "seeds=2", "search.metric=loss")
    answer = vae("train", "epochs=4", *TINY[1:], *search)
    assert answer.code == 1, answer.err  # no trial is complete
    assert "pruned after epoch 2" in answer.out
    assert [trial.state for trial in history().trials] == ["pruned"] * 2
    assert [len(trial.runs) for trial in history().trials] == [1, 1]
    for trial in history().trials:
        assert trial.runs[0].endswith("-seed=0")
        assert set(trial.validations) == {1, 2}
        folder = SWEEP / trial.runs[0]
        assert json.loads((folder / "summary.json").read_text())["status"] == "pruned"
    assert "0 of 2 jobs done, 2 pruned." in answer.out
    (line,) = vae("train", f"resume={folder}").errors()
    assert "finished after 2 epochs; add epochs=8" in line
    answer = vae("reproduce", f"run={folder}")
    assert answer.code == 0
    assert "the run was pruned after epoch 2, and is compared until there" in answer.out
    assert "identical: all" in answer.out
    assert vae("train", f"resume={folder}", "epochs=5").code == 0
    assert json.loads((folder / "summary.json").read_text())["status"] == "done"


def test_a_metric_of_an_evaluation_decides(vae: Vae) -> None:
    answer = vae.train(*SEARCH, "search=random", "trials=1", "search.metric=[rate,active_units]", "seeds=2")
    assert answer.code == 0, answer.err
    (trial,) = history().trials
    reports = [json.loads((SWEEP / run / "eval/valid.json").read_text()) for run in trial.runs]
    assert [run.rpartition("-")[2] for run in trial.runs] == ["seed=0", "seed=1"]
    assert trial.values[1] == sum(report["active_units"]["value"] for report in reports) / 2
    assert "linear_probe" not in reports[0]
    assert history().directions == ["minimize", "maximize"]


def test_settings_that_do_not_work_together_are_a_failed_trial(vae: Vae, monkeypatch) -> None:
    check = train_module.check

    def refuse(settings, job):
        errors = [ErrorDetail("beta", "is not liked")] if settings.beta not in (0.5, 8) else []
        return errors + check(settings, job)

    monkeypatch.setattr(train_module, "check", refuse)
    answer = vae.train(*SEARCH, "search=random", "trials=2")
    assert answer.code == 1
    assert [trial.error for trial in history().trials] == ["beta: is not liked"] * 2
    assert "2 trials: 2 failed" in answer.out
